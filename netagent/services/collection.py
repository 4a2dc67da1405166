"""Garbage: attachments of runtimes' containers that their runtime forgot (CNI GC), or whose namespace is gone.

Not every runtime calls GC, and a chain's DEL may stop at another plugin before it comes to us, so that addresses and
ports would stay taken for ever: a sweep collects what has lost its namespace. Both spare the young. The runtime may
be adding an attachment while it composes its list, and a namespace that is away for a moment is not gone.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterator

from netagent.errors import Conflict, NetagentError, Unavailable
from netagent.model.container import Container, ContainerKind, Delegation
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.model.ids import EndpointId
from netagent.runtime.delegate import call_delegate
from netagent.services.attachments import AttachmentService
from netagent.services.context import Context

log = logging.getLogger("netagent.collection")

SWEEPS_A_GRACE = 6
"""How often the sweep comes within the time of grace."""


class CollectionService:
    """Collects by the runtime's list, and by itself. ``grace_s`` is for how long both wait, in seconds."""

    def __init__(self, context: Context, attachments: AttachmentService, *, grace_s: float) -> None:
        self._context = context
        self._attachments = attachments
        self._grace_s = grace_s
        self._known_since: dict[EndpointId, float] = {}
        self._lost_since: dict[EndpointId, float] = {}

    async def collect(self, configuration: str, valid: Collection[tuple[str, str]]) -> list[NetagentError]:
        """Disconnect all that ``configuration`` made and that ``valid`` does not name; return what went wrong.

        ``valid`` holds pairs of the runtime's container id and the interface.
        """
        self._note()
        failures: list[NetagentError] = []
        for container, endpoint in tuple(self._attached()):
            origin = container.origin_of(endpoint.interface)
            if origin is None or origin.configuration != configuration:
                continue
            if (container.runtime_id, endpoint.interface) not in valid and self._is_old(endpoint):
                log.info("%s of container %s is garbage to its runtime", endpoint.interface, container.name)
                failures += await self._disconnect(container, endpoint)
        return failures

    async def run(self) -> None:
        """Sweep for as long as the agent runs."""
        while True:
            await self.sweep()
            await asyncio.sleep(self._grace_s / SWEEPS_A_GRACE)

    async def sweep(self) -> None:
        """Disconnect what has been without its namespace for the time of grace."""
        self._note()
        for container, endpoint in tuple(self._attached()):
            try:
                is_there = await self._attachments.has_sandbox(endpoint)
            except Unavailable:
                continue
            if is_there:
                self._lost_since.pop(endpoint.id, None)
                continue
            since = self._lost_since.setdefault(endpoint.id, _now())
            if _now() - since >= self._grace_s:
                log.warning("container %s: its namespace %s is gone", container.name, endpoint.sandbox)
                await self._disconnect(container, endpoint)

    async def _disconnect(self, container: Container, endpoint: Endpoint) -> list[NetagentError]:
        origin = container.origin_of(endpoint.interface)
        try:
            if origin is not None and origin.ipam is not None:
                await self._release(origin.ipam)
            await self._attachments.detach_lost(container, endpoint)
        except NetagentError as error:
            log.error("container %s could not be disconnected: %s", container.name, error)
            return [error]
        return []

    async def _release(self, ipam: Delegation) -> None:
        """Tell another IPAM plugin that an address is free; Conflict if it fails, which the next sweep tries again."""
        outcome = await call_delegate(ipam, "DEL")
        if outcome.status:
            raise Conflict(
                f"IPAM plugin {ipam.plugin} failed to release an address",
                hint=(outcome.output or outcome.complaint).decode(errors="replace").strip(),
            )

    def _attached(self) -> Iterator[tuple[Container, Endpoint]]:
        """Yield the attachments of runtimes' containers."""
        containers = self._context.journal.containers
        for endpoint in tuple(self._context.journal.endpoints.values()):
            container = containers.get(endpoint.container_id)
            if container is None or container.kind is not ContainerKind.CNI:
                continue
            if endpoint.state is EndpointState.ATTACHED:
                yield container, endpoint

    def _note(self) -> None:
        """Remember since when each attachment has been known, and forget those that are gone."""
        present = {endpoint.id for _, endpoint in self._attached()}
        self._known_since = {i: self._known_since.get(i, _now()) for i in present}
        self._lost_since = {i: since for i, since in self._lost_since.items() if i in present}

    def _is_old(self, endpoint: Endpoint) -> bool:
        return _now() - self._known_since.get(endpoint.id, _now()) >= self._grace_s


def _now() -> float:
    # Goes on while the machine sleeps, and does not jump when somebody sets the clock.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
