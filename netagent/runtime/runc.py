"""The agent's hand on containers: create, start, signal, stop, delete, and wait for the end.

A container's life: ``create`` (its monitor listens on the attach socket, nothing runs yet), ``start``, its end,
``delete`` (the OCI runtime and the cgroups forget it; files, log and exit status stay), ``create`` again or
``remove_files``. Every step can be repeated, and ``delete(force=True)`` followed by ``remove_files`` clears whatever an
agent left that died in the middle. Calls for one container must not overlap, except ``wait``, ``state`` and ``kill``.
"""

import asyncio
import errno
import json
import os
import shutil
import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from netagent import failpoint
from netagent.errors import Conflict, EnvironmentProblem, InvalidRequest, NetagentError, NotFound
from netagent.model.ids import ContainerId
from netagent.runtime import cgroup
from netagent.runtime.bundle import capabilities_of, render_config
from netagent.runtime.layout import RUNTIME_ROOT, Layout
from netagent.runtime.monitor import (
    describe,
    kill_monitors,
    launch,
    monitor_arguments,
    monitors_gone,
    open_monitor,
    readable,
)
from netagent.runtime.programs import Programs, environment, find_programs, require_capabilities
from netagent.runtime.refusal import refusal
from netagent.runtime.rootfs import mount_root, unmount_root
from netagent.runtime.spec import BindMount, ContainerSpec
from netagent.runtime.text_files import update_text, write_text

REMOVE_ATTEMPTS = 5
MONITOR_GRACE_S = 5.0
"""How long a monitor may take to note the end of its container before it is killed itself."""
MONITOR_LOOK_S = 0.2
"""How often it is looked whether a monitor has brought up a container that is to be gone."""


class RunStatus(StrEnum):
    """How a container stands with the OCI runtime. ``ABSENT``: nothing of it runs and no exit status is known."""

    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """``pid`` is 0 unless created or running. ``exit_code`` is None unless stopped, and if the monitor was killed."""

    status: RunStatus
    pid: int = 0
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """A container that waits for ``start``: its first process, and where its input and output are to be had."""

    pid: int
    attach_socket: Path
    log: Path


class Runtime:
    """All containers below one run directory. ``programs`` None: looked for when first needed."""

    def __init__(self, run_dir: Path, *, programs: Programs | None = None) -> None:
        self._run_dir = run_dir.absolute()
        self._runtime_root = self._run_dir / RUNTIME_ROOT
        self._programs = programs

    @property
    def programs(self) -> Programs:
        """The programs in use; EnvironmentProblem if one is missing."""
        if self._programs is None:
            self._programs = find_programs()
        return self._programs

    def layout(self, container_id: ContainerId) -> Layout:
        """Return where the container's files lie."""
        return Layout(self._run_dir / "containers" / container_id)

    def ids(self) -> tuple[ContainerId, ...]:
        """Return the ids of all containers that have files, whole or not."""
        try:
            return tuple(ContainerId(path.name) for path in sorted((self._run_dir / "containers").iterdir()))
        except FileNotFoundError:
            return ()

    async def create(self, spec: ContainerSpec) -> Created:
        """Make the container up to the point where ``start`` lets its command go; a stopped one keeps root and log.

        InvalidRequest if the command cannot be run (``exit_status`` 126 or 127 in its facts, as in Docker), else
        EnvironmentProblem with the runtime's words. After an error ``delete(force=True)`` clears what was begun.
        """
        programs, layout = self.programs, self.layout(spec.id)
        require_capabilities(capabilities_of(spec))
        _check(spec)
        failpoint.reach("runtime.directory.before")
        try:
            layout.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            await self.delete(spec.id)
        failpoint.reach("runtime.directory.after")
        await asyncio.to_thread(_write_bundle, spec, layout)
        arguments = monitor_arguments(
            programs.monitor, spec, layout, runtime=programs.runtime, runtime_options=self._options(layout)
        )
        failpoint.reach("runtime.create.before")
        report = await launch(arguments, layout, environment())
        failpoint.reach("runtime.create.after")
        if report.pid <= 0:
            raise refusal(spec.id, "create", report.message)
        return Created(pid=report.pid, attach_socket=layout.attach, log=layout.log)

    async def start(self, container_id: ContainerId) -> None:
        """Let the command of a created container go."""
        await self._call("start", container_id)

    async def kill(self, container_id: ContainerId, number: int) -> None:
        """Send signal ``number`` to the container's first process; Conflict if it does not run."""
        try:
            await self._call("kill", container_id, str(int(number)))
        except NotFound:
            raise
        except NetagentError:
            if (await self.state(container_id)).status in (RunStatus.CREATED, RunStatus.RUNNING):
                raise
            raise Conflict(f"{describe(container_id)} is not running") from None

    async def stop(self, container_id: ContainerId, *, timeout_s: float) -> int | None:
        """End the container: SIGTERM, after ``timeout_s`` SIGKILL; return its exit status as ``wait`` does."""
        try:
            await self.kill(container_id, signal.SIGTERM)
            async with asyncio.timeout(timeout_s):
                return await self.wait(container_id)
        except TimeoutError:
            await self._kill_if_running(container_id)
        except Conflict:
            pass
        return await self.wait(container_id)

    async def wait(self, container_id: ContainerId) -> int | None:
        """Return the exit status once the container has ended, whoever started it: 128 + signal for a killed one.

        None if its monitor was killed and nobody knows, or if there is no such container.
        """
        layout = self.layout(container_id)
        while (code := layout.exit_code()) is None:
            pidfd = open_monitor(container_id, layout)
            if pidfd is None:
                pidfd = await self._open_orphan(container_id)
            if pidfd is None:
                return layout.exit_code()
            try:
                await readable(pidfd)
            finally:
                os.close(pidfd)
        return code

    async def state(self, container_id: ContainerId) -> RunState:
        """Return how the container stands."""
        layout = self.layout(container_id)
        if (code := layout.exit_code()) is not None:
            return RunState(status=RunStatus.STOPPED, exit_code=code)
        if not layout.directory.exists():
            return RunState(status=RunStatus.ABSENT)
        status, output, complaint = await self._run("state", container_id)
        if status:
            if "does not exist" in complaint:
                return RunState(status=RunStatus.ABSENT)
            raise refusal(container_id, "state", complaint)
        return _parse_state(json.loads(output), layout)

    async def delete(self, container_id: ContainerId, *, force: bool = False) -> None:
        """Make the OCI runtime and the cgroups forget the container; its files stay, with log and exit status.

        A running one is refused with Conflict, or killed with ``force``. One that is absent is no error.
        """
        layout = self.layout(container_id)
        if not layout.directory.exists():
            return
        if not force and (await self.state(container_id)).status in (RunStatus.CREATED, RunStatus.RUNNING):
            raise Conflict(f"{describe(container_id)} is running", hint="stop it before removing, or force the removal")
        failpoint.reach("runtime.delete.before")
        await self._end(container_id, layout)
        await cgroup.remove(container_id)
        failpoint.reach("runtime.delete.after")

    async def remove_files(self, container_id: ContainerId) -> None:
        """Remove root, log and everything else that is left of a deleted container; absent is no error."""
        layout = self.layout(container_id)
        failpoint.reach("runtime.remove.before")
        await asyncio.to_thread(_remove_tree, layout.directory)
        failpoint.reach("runtime.remove.after")

    def write_file(self, container_id: ContainerId, path: str, text: str) -> None:
        """Change what the container sees at ``path``, one of its spec's ``files``, while it runs or not.

        Lines that somebody inside has added stay.
        """
        try:
            update_text(self.layout(container_id).text_file(path), text)
        except FileNotFoundError:
            raise NotFound(f"{describe(container_id)} has no file of ours at {path}") from None

    async def _end(self, container_id: ContainerId, layout: Layout) -> None:
        """A monitor whose agent died while it was creating may bring the container up at any time before it ends."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + MONITOR_GRACE_S
        await self._delete(container_id)
        while not await monitors_gone(layout, timeout_s=MONITOR_LOOK_S):
            if clock() > deadline:
                await asyncio.to_thread(kill_monitors, container_id, layout)
            await self._delete(container_id)
        await self._delete(container_id)

    async def _delete(self, container_id: ContainerId) -> None:
        if not (self._runtime_root / container_id).exists():
            return
        status, _, complaint = await self._run("delete", "--force", container_id)
        if status and "does not exist" not in complaint:
            raise refusal(container_id, "delete", complaint)

    async def _kill_if_running(self, container_id: ContainerId) -> None:
        try:
            await self.kill(container_id, signal.SIGKILL)
        except Conflict:
            return

    async def _open_orphan(self, container_id: ContainerId) -> int | None:
        """Return a pidfd of the first process of a container whose monitor is gone, or None."""
        run = await self.state(container_id)
        try:
            return os.pidfd_open(run.pid) if run.pid else None
        except ProcessLookupError:
            return None

    async def _call(self, verb: str, container_id: ContainerId, *arguments: str) -> None:
        if not self.layout(container_id).directory.exists():
            raise NotFound(f"no {describe(container_id)}")
        failpoint.reach(f"runtime.{verb}.before")
        status, _, complaint = await self._run(verb, container_id, *arguments)
        failpoint.reach(f"runtime.{verb}.after")
        if status:
            raise refusal(container_id, verb, complaint)

    async def _run(self, verb: str, *arguments: str) -> tuple[int, str, str]:
        """Run the OCI runtime; return its exit status, output and complaint."""
        container_id = ContainerId(next(word for word in arguments if not word.startswith("-")))
        process = await asyncio.create_subprocess_exec(
            self.programs.runtime,
            *self._options(self.layout(container_id)),
            verb,
            *arguments,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        output, complaint = await process.communicate()
        return process.returncode or 0, output.decode(errors="replace"), complaint.decode(errors="replace").strip()

    def _options(self, layout: Layout) -> tuple[str, ...]:
        """With a log of its own the runtime's warnings stay out of the container's standard error."""
        return (f"--root={self._runtime_root}", f"--log={layout.runtime_log}", "--log-format=json")


def _check(spec: ContainerSpec) -> None:
    if not spec.command:
        raise InvalidRequest("no command specified", hint="name the command to run in the container")
    for mount in spec.mounts:
        if not Path(mount.source).exists():
            raise InvalidRequest(f"bind source path does not exist: {mount.source}")


def _write_bundle(spec: ContainerSpec, layout: Layout) -> None:
    """Mount the root and write what the OCI runtime reads."""
    root = mount_root(layout.directory, spec.rootfs)
    for stale in (layout.exit, layout.pid, layout.monitor_pid, layout.runtime_log):
        stale.unlink(missing_ok=True)
    files = []
    for file in spec.files:
        target = layout.text_file(file.path)
        write_text(target, file.text)
        files.append(BindMount(source=str(target), destination=file.path))
    config = render_config(spec, root=str(root), files=tuple(files))
    layout.config.write_text(json.dumps(config, indent=1))


def _parse_state(state: dict[str, Any], layout: Layout) -> RunState:
    """Read what ``runc state`` prints (runtime-spec, "State")."""
    match state["status"]:
        case "creating" | "created":
            return RunState(status=RunStatus.CREATED, pid=state["pid"])
        case "running" | "paused":
            return RunState(status=RunStatus.RUNNING, pid=state["pid"])
        case _:
            return RunState(status=RunStatus.STOPPED, exit_code=layout.exit_code())


def _remove_tree(directory: Path) -> None:
    unmount_root(directory)
    for attempt in range(REMOVE_ATTEMPTS):
        try:
            shutil.rmtree(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            # A monitor that is just ending may write its last file while the directory is being emptied.
            if error.errno != errno.ENOTEMPTY or attempt == REMOVE_ATTEMPTS - 1:
                raise EnvironmentProblem(f"cannot remove {directory}: {error.strerror}") from error
