"""An OCI runtime in memory: containers whose processes end when a test says so."""

import asyncio
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

from netagent.errors import Conflict, EnvironmentProblem, NetagentError, NotFound
from netagent.model.ids import ContainerId
from netagent.runtime.layout import Layout
from netagent.runtime.runc import Created, RunState, RunStatus
from netagent.runtime.spec import ContainerSpec


@dataclass
class Box:
    """One container as the runtime has it; ``exit_code`` None with status STOPPED: nobody saw how it ended."""

    spec: ContainerSpec | None = None
    status: RunStatus = RunStatus.ABSENT
    exit_code: int | None = None
    ignores_term: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class FakeRuntime:
    """Does what ``runtime.runc.Runtime`` does, as far as the services see. ``boxes`` is the run directory.

    ``refuse`` maps a verb to the error that its next call meets instead of being carried out.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.boxes: dict[ContainerId, Box] = {}
        self.refuse: dict[str, NetagentError] = {}
        self.calls: list[str] = []

    def exit(self, container_id: ContainerId, code: int | None = 0) -> None:
        """End the container's process with ``code``."""
        box = self.boxes[container_id]
        box.status, box.exit_code = RunStatus.STOPPED, code
        box.ended.set()

    def put(self, container_id: ContainerId, status: RunStatus, exit_code: int | None = None) -> None:
        """Have a container in some state without any call, as an earlier agent left it."""
        box = Box(status=status, exit_code=exit_code)
        if status is RunStatus.STOPPED:
            box.ended.set()
        self.boxes[container_id] = box

    def status(self, container_id: ContainerId) -> RunStatus:
        """Return how a container stands."""
        return self.boxes[container_id].status if container_id in self.boxes else RunStatus.ABSENT

    def text(self, container_id: ContainerId, path: str) -> str:
        """Return the text of one of the container's own files."""
        spec = self.boxes[container_id].spec
        assert spec is not None
        return next(file.text for file in spec.files if file.path == path)

    def write_file(self, container_id: ContainerId, path: str, text: str) -> None:
        box = self.boxes.get(container_id)
        if box is None or box.spec is None or path not in [file.path for file in box.spec.files]:
            raise NotFound(f"container {container_id[:12]} has no file of ours at {path}")
        files = tuple(replace(file, text=text) if file.path == path else file for file in box.spec.files)
        box.spec = replace(box.spec, files=files)

    def layout(self, container_id: ContainerId) -> Layout:
        return Layout(self._run_dir / "containers" / container_id)

    def ids(self) -> tuple[ContainerId, ...]:
        return tuple(self.boxes)

    async def create(self, spec: ContainerSpec) -> Created:
        self._call("create", spec.id)
        box = self.boxes.setdefault(spec.id, Box())
        if box.status in (RunStatus.CREATED, RunStatus.RUNNING):
            raise EnvironmentProblem(f"container {spec.id[:12]} exists")
        box.spec, box.status, box.exit_code = spec, RunStatus.CREATED, None
        box.ended.clear()
        layout = self.layout(spec.id)
        return Created(pid=1, attach_socket=layout.attach, log=layout.log)

    async def start(self, container_id: ContainerId) -> None:
        self._call("start", container_id)
        box = self._box(container_id)
        if box.status is not RunStatus.CREATED:
            raise EnvironmentProblem(f"container {container_id[:12]} is {box.status}")
        box.status = RunStatus.RUNNING

    async def kill(self, container_id: ContainerId, number: int) -> None:
        self._call("kill", container_id)
        box = self._box(container_id)
        if box.status is not RunStatus.RUNNING:
            raise Conflict(f"container {container_id[:12]} is not running")
        if number == signal.SIGKILL or (number == signal.SIGTERM and not box.ignores_term):
            self.exit(container_id, 128 + number)

    async def stop(self, container_id: ContainerId, *, timeout_s: float) -> int | None:
        if self._box(container_id).status is RunStatus.RUNNING:
            await self.kill(container_id, signal.SIGTERM)
        if self._box(container_id).status is RunStatus.RUNNING:
            await self.kill(container_id, signal.SIGKILL)
        return await self.wait(container_id)

    async def wait(self, container_id: ContainerId) -> int | None:
        if container_id not in self.boxes:
            return None
        box = self.boxes[container_id]
        await box.ended.wait()
        return box.exit_code

    async def state(self, container_id: ContainerId) -> RunState:
        box = self.boxes.get(container_id)
        if box is None:
            return RunState(status=RunStatus.ABSENT)
        return RunState(status=box.status, exit_code=box.exit_code)

    async def delete(self, container_id: ContainerId, *, force: bool = False) -> None:
        self._call("delete", container_id)
        box = self.boxes.get(container_id)
        if box is None:
            return
        if box.status is RunStatus.RUNNING and not force:
            raise Conflict(f"container {container_id[:12]} is running")
        if box.status is RunStatus.RUNNING:
            self.exit(container_id, 137)
        if box.status is RunStatus.CREATED:
            box.status = RunStatus.ABSENT
            box.ended.set()

    async def remove_files(self, container_id: ContainerId) -> None:
        self._call("remove_files", container_id)
        self.boxes.pop(container_id, None)

    def _box(self, container_id: ContainerId) -> Box:
        if container_id not in self.boxes:
            raise NotFound(f"no container {container_id[:12]}")
        return self.boxes[container_id]

    def _call(self, verb: str, container_id: ContainerId) -> None:
        self.calls.append(f"{verb} {container_id[:12]}")
        if verb in self.refuse:
            raise self.refuse.pop(verb)
