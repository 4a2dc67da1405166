"""Containers that netagent runs: from ``create`` to ``remove``, and what happens when one exits.

The order is the journal's: a row says ``creating`` before anything of the container exists and goes last. The
process itself belongs to its monitor (``runtime``), so nothing here is needed for a container to go on running.
"""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import msgspec

from netagent.errors import Conflict, NetagentError, NotFound
from netagent.model.container import Container, ContainerKind, ContainerState
from netagent.model.endpoint import EndpointState
from netagent.model.ids import ContainerId, short
from netagent.runtime.runc import RunStatus, Runtime
from netagent.runtime.spec import ContainerSpec
from netagent.services.container_files import ContainerFiles
from netagent.services.context import Context
from netagent.services.endpoints import EndpointService
from netagent.services.locks import Locks
from netagent.services.names import find_by_name, natural_key
from netagent.services.networks import NetworkService
from netagent.services.new_containers import ContainerParser
from netagent.services.requests import ContainerView, NewContainer
from netagent.services.tasks import Tasks
from netagent.services.wanted import Wanted, wanted_again

log = logging.getLogger("netagent.containers")

EXIT_UNKNOWN = 255
"""The exit status of a container whose end nobody saw: its monitor was killed, or the machine went down."""

EXIT_CODES_KEPT = 1000
"""Exit statuses remembered for clients that ask after the container was removed."""


class ContainerService:
    """The containers of this host, whoever started them; ``create`` and ``start`` are for those of ``netagent run``."""

    def __init__(
        self,
        context: Context,
        networks: NetworkService,
        endpoints: EndpointService,
        runtime: Runtime,
        sandboxes: Path,
        tasks: Tasks,
    ) -> None:
        self._context = context
        self._endpoints = endpoints
        self._runtime = runtime
        self.files = ContainerFiles(context, runtime)
        self._parser = ContainerParser(context, networks, self.find, sandboxes)
        self._tasks = tasks
        self._locks = Locks()
        self._ended: dict[ContainerId, asyncio.Event] = {}
        self._exit_codes: dict[ContainerId, int] = {}

    # Looking

    def find(self, name: str) -> Container:
        """Return the container that ``name`` means; NotFound in Docker's words."""
        return find_by_name(
            name,
            self._context.journal.containers.values(),
            what="container",
            missing=f"No such container: {name}",
            hint="netagent ps -a shows those there are",
        )

    def list(self, *, everything: bool) -> list[ContainerView]:
        """Return the running containers, or ``everything``, sorted by name."""
        shown = [c for c in self._context.journal.containers.values() if everything or c.is_up]
        return [self._view(c) for c in sorted(shown, key=lambda c: natural_key(c.name))]

    def view(self, name: str) -> ContainerView:
        """Return one container with its endpoints."""
        return self._view(self.find(name))

    def _view(self, container: Container) -> ContainerView:
        networks = self._context.snapshot().networks
        spec = _read_spec(container)
        return ContainerView(
            container=container,
            endpoints=tuple((e, networks.get(e.network_id)) for e in self._context.journal.endpoints_of(container.id)),
            pid=self._runtime.layout(container.id).first_pid()
            if container.state is ContainerState.RUNNING and spec
            else 0,
            terminal=spec is not None and spec.terminal,
            sysctls=spec.sysctls if spec else (),
            cap_add=spec.cap_add if spec else (),
            cap_drop=spec.cap_drop if spec else (),
        )

    def exclusive(self, container: Container) -> AbstractAsyncContextManager[None]:
        """Return a block in which nothing else is done with ``container``, one of ``netagent run``."""
        return self._locks.held(container.id)

    # Making

    async def create(self, request: NewContainer) -> tuple[Container, tuple[str, ...]]:
        """Make a container with its network, not yet running; return it with warnings. On failure nothing is left."""
        identity = ContainerId(self._context.new_id())
        parsed = self._parser.parse(request, identity)
        container, wanted = parsed.container, parsed.wanted
        self._endpoints.check(wanted)
        async with self._locks.held(identity):
            self._context.journal.put_container(container)
            try:
                await self._bring_up(container, wanted)
            except BaseException:
                try:
                    await self._clear(container)
                except NetagentError as error:
                    # The next start of the agent, or its removal, takes away what is left.
                    log.error("container %s was not made, but not all of it is gone: %s", container.name, error)
                raise
            created = replace(container, state=ContainerState.CREATED)
            self._context.journal.put_container(created)
        self._tell("create", created)
        return created, parsed.warnings

    async def _bring_up(self, container: Container, wanted: tuple[Wanted, ...]) -> None:
        """Make sandbox and endpoints of a container, and the container itself up to its start."""
        if container.owns_sandbox:
            await self._context.kernel.create_sandbox(container.sandbox)
        if wanted:
            await self._endpoints.attach(container, wanted)
        spec = _read_spec(container)
        assert spec is not None
        environment = (*self.files.environment(container), *spec.environment)
        await self._runtime.create(replace(spec, environment=environment, files=self.files.render(container)))
        self.files.refresh(container)

    # Running

    async def start(self, name: str) -> None:
        """Run a created or stopped container; one that runs is no error, as in Docker."""
        container = self.find(name)
        _require_own(container, "start")
        async with self._locks.held(container.id):
            container = self.find(container.id)
            if container.state is ContainerState.RUNNING:
                return
            if container.state is ContainerState.EXITED:
                await self._wake(container)
            try:
                await self._runtime.start(container.id)
            except NetagentError:
                await self._rest(container, exit_code=127)
                raise
            running = replace(
                container, state=ContainerState.RUNNING, started=self._context.now(), finished="", exit_code=None
            )
            self._context.journal.put_container(running)
            self._watch(running)
        self._tell("start", running)

    async def _wake(self, container: Container) -> None:
        """Bring a stopped container's network and process back to where ``create`` had left them."""
        networks = self._context.snapshot().networks
        wanted = []
        for endpoint in self._context.journal.endpoints_of(container.id):
            network = networks.get(endpoint.network_id)
            if network is None:
                raise NotFound(f"network {short(endpoint.network_id)} not found", hint=f"netagent rm {container.name}")
            wanted.append(wanted_again(endpoint, network))
        if container.shares is not None and not self.find(container.shares).is_up:
            raise Conflict(f"cannot join network of a non running container: {short(container.shares)}")
        try:
            await self._bring_up(container, tuple(wanted))
        except BaseException:
            await self._rest(container, exit_code=container.exit_code)
            raise

    def _watch(self, container: Container) -> None:
        self._ended[container.id] = asyncio.Event()
        self._tasks.spawn(self._until_exit(container.id), name=f"container {container.name}")

    def watch_running(self) -> None:
        """Watch the containers that an earlier agent left running."""
        for container in self._context.journal.containers.values():
            if container.kind is ContainerKind.RUN and container.state is ContainerState.RUNNING:
                self._watch(container)

    async def _until_exit(self, container_id: ContainerId) -> None:
        status = await self._runtime.wait(container_id)
        exit_code = EXIT_UNKNOWN if status is None else status
        self._note_exit(container_id, exit_code)
        try:
            async with self._locks.held(container_id):
                container = self._context.journal.containers.get(container_id)
                if container is not None and container.state is ContainerState.RUNNING:
                    await self._rest(container, exit_code=exit_code)
                    self._tell("die", container, exit_code=str(exit_code))
                    if container.auto_remove:
                        await self._remove(self.find(container_id))
        finally:
            event = self._ended.pop(container_id, None)
            if event is not None:
                event.set()

    async def _rest(self, container: Container, *, exit_code: int | None) -> None:
        """Put a container whose process is gone to rest: its network is given up, its fixed addresses are kept."""
        await self._endpoints.detach(self._context.journal.endpoints_of(container.id), keep_fixed=True)
        try:
            await self._runtime.delete(container.id, force=True)
            if container.owns_sandbox:
                await self._context.kernel.delete_sandbox(container.sandbox)
        except NetagentError as error:
            # The next start of the container, or its removal, deletes what is left.
            log.error("container %s ended, but not all of it is gone: %s", container.name, error)
        rested = replace(container, state=ContainerState.EXITED, finished=self._context.now(), exit_code=exit_code)
        self._context.journal.put_container(rested)

    async def stop(self, name: str, *, timeout_s: float = 10.0) -> None:
        """End a container: SIGTERM, then SIGKILL after ``timeout_s``; one that does not run is no error."""
        container = self.find(name)
        _require_own(container, "stop")
        if container.state is ContainerState.CREATED:
            async with self._locks.held(container.id):
                latest = self._context.journal.containers.get(container.id)
                if latest is not None and latest.state is ContainerState.CREATED:
                    await self._rest(latest, exit_code=137)
            return
        ended = self._ended.get(container.id)
        if container.state is ContainerState.RUNNING and ended is not None:
            await self._runtime.stop(container.id, timeout_s=timeout_s)
            await ended.wait()
            self._tell("stop", container)

    async def kill(self, name: str, signal: int) -> None:
        """Send ``signal`` to a container's first process; Conflict if it does not run."""
        container = self.find(name)
        _require_own(container, "kill")
        if container.state is not ContainerState.RUNNING:
            raise Conflict(f"container {container.name} is not running")
        await self._runtime.kill(container.id, signal)

    async def wait(self, name: str) -> int:
        """Return the exit status of a container once it does not run any more, also after ``--rm`` has removed it."""
        if name in self._exit_codes and ContainerId(name) not in self._context.journal.containers:
            return self._exit_codes[ContainerId(name)]
        container = self.find(name)
        _require_own(container, "wait for")
        ended = self._ended.get(container.id)
        if ended is not None:
            await ended.wait()
        return self._exit_codes.get(container.id, EXIT_UNKNOWN if container.exit_code is None else container.exit_code)

    def _note_exit(self, container_id: ContainerId, exit_code: int) -> None:
        self._exit_codes.pop(container_id, None)
        self._exit_codes[container_id] = exit_code
        while len(self._exit_codes) > EXIT_CODES_KEPT:
            del self._exit_codes[next(iter(self._exit_codes))]

    # Removing

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a container with everything of it; one that runs only with ``force``."""
        container = self.find(name)
        if container.kind is not ContainerKind.RUN:
            raise Conflict(
                f"container {container.name} was not started by netagent", hint=f"netagent detach {container.name}"
            )
        if container.state is ContainerState.RUNNING:
            if not force:
                raise Conflict(
                    f"cannot remove container {container.name}: container is running",
                    hint="stop it before removing, or use -f",
                )
            await self.stop(container.id, timeout_s=0)
        async with self._locks.held(container.id):
            latest = self._context.journal.containers.get(container.id)
            if latest is not None:
                await self._remove(latest)

    async def _remove(self, container: Container) -> None:
        self._context.journal.put_container(replace(container, state=ContainerState.REMOVING))
        await self._clear(container)
        self._tell("destroy", container)

    async def _clear(self, container: Container) -> None:
        """Remove whatever exists of a container, from the process down to the row; nothing of it is needed to exist."""
        await self._runtime.delete(container.id, force=True)
        await self._endpoints.detach(self._context.journal.endpoints_of(container.id))
        if container.owns_sandbox:
            await self._context.kernel.delete_sandbox(container.sandbox)
        await self._runtime.remove_files(container.id)
        self._context.journal.remove_container(container.id)

    # Starting anew

    async def recover(self) -> None:
        """Bring every container to what its row says, after the agent was away for any reason at any moment."""
        known = self._context.journal.containers
        for identity in self._runtime.ids():
            if identity not in known:
                await self._runtime.delete(identity, force=True)
                await self._runtime.remove_files(identity)
        for container in tuple(known.values()):
            if container.kind is ContainerKind.RUN:
                try:
                    await self._recover_one(container)
                except NetagentError as error:
                    log.error("container %s is not as it should be: %s", container.name, error)
        self.watch_running()

    async def _recover_one(self, container: Container) -> None:
        if container.state in (ContainerState.CREATING, ContainerState.REMOVING):
            await self._clear(container)
            return
        state = await self._runtime.state(container.id)
        if container.state is ContainerState.EXITED:
            is_awake = any(
                e.state is not EndpointState.DORMANT for e in self._context.journal.endpoints_of(container.id)
            )
            if is_awake or state.status in (RunStatus.CREATED, RunStatus.RUNNING):
                # The agent died while it was starting this container again.
                await self._rest(container, exit_code=container.exit_code)
            return
        if state.status is RunStatus.RUNNING:
            if container.state is not ContainerState.RUNNING:
                self._context.journal.put_container(replace(container, state=ContainerState.RUNNING))
            # A connect or disconnect that the agent did not live to finish: both end disconnected.
            half_way = (EndpointState.ATTACHING, EndpointState.DETACHING)
            await self._endpoints.detach(
                [e for e in self._context.journal.endpoints_of(container.id) if e.state in half_way]
            )
            self.files.refresh(self.find(container.id))
        elif state.status is not RunStatus.CREATED:
            await self._rest(container, exit_code=EXIT_UNKNOWN if state.exit_code is None else state.exit_code)
            if container.auto_remove:
                await self._remove(self.find(container.id))

    def _tell(self, action: str, container: Container, **attributes: str) -> None:
        self._context.events.publish("container", action, container.id, name=container.name, **attributes)


def _require_own(container: Container, verb: str) -> None:
    if container.kind is not ContainerKind.RUN:
        raise Conflict(
            f"cannot {verb} container {container.name}: it was not started by netagent",
            hint="use the program that started it",
        )


def _read_spec(container: Container) -> ContainerSpec | None:
    return msgspec.json.decode(container.spec, type=ContainerSpec) if container.spec else None
