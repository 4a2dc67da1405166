"""Ports published and taken back while their container goes on running."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from itertools import groupby

from netagent.errors import Conflict, NotFound
from netagent.model.container import Container, ContainerKind, NetworkMode
from netagent.model.endpoint import Endpoint
from netagent.model.ids import short
from netagent.model.network import Network
from netagent.model.port import PortMapping
from netagent.model.port_grammar import parse_published
from netagent.services.attachments import AttachmentService
from netagent.services.containers import ContainerService
from netagent.services.context import Context
from netagent.services.endpoints import EndpointService
from netagent.services.ports import PortService


class PublishingService:
    """``publish`` and ``unpublish``."""

    def __init__(
        self,
        context: Context,
        endpoints: EndpointService,
        ports: PortService,
        containers: ContainerService,
        attachments: AttachmentService,
    ) -> None:
        self._context = context
        self._endpoints = endpoints
        self._ports = ports
        self._containers = containers
        self._attachments = attachments

    async def publish(self, name: str, texts: tuple[str, ...]) -> tuple[PortMapping, ...]:
        """Publish further ports of a container, all or none, and return them with the host ports that were chosen."""
        wanted = parse_published(texts)
        container = self._containers.find(name)
        _refuse_modes(container)
        async with self._exclusive(container):
            endpoint = self._endpoint_of(container)
            network = self._network_of(endpoint)
            if not endpoint.in_kernel:
                self._ports.check(wanted, network)
                await self._endpoints.set_ports(endpoint, (*endpoint.ports, *wanted))
                return wanted
            taken = self._ports.take(wanted, network)
            try:
                await self._endpoints.set_ports(endpoint, (*endpoint.ports, *taken))
            except BaseException:
                self._ports.release(taken)
                raise
        self._tell("publish", container, taken)
        return taken

    async def unpublish(self, name: str, texts: tuple[str, ...]) -> None:
        """Take published ports of a container back; what a text leaves out matches anything."""
        asked = parse_published(texts)
        container = self._containers.find(name)
        _refuse_modes(container)
        async with self._exclusive(container):
            rows = self._context.journal.endpoints_of(container.id)
            kept = {row.id: row.ports for row in rows}
            for pattern in asked:
                _refuse_unpublished(container, pattern, rows)
                kept = {identity: _without(ports, pattern) for identity, ports in kept.items()}
            for row in rows:
                if kept[row.id] != row.ports:
                    gone = _difference(row.ports, kept[row.id])
                    await self._endpoints.set_ports(row, kept[row.id])
                    self._ports.release(gone)
                    self._tell("unpublish", container, gone)

    def _endpoint_of(self, container: Container) -> Endpoint:
        """Return the endpoint whose ports are published: the one that has some already, else the first."""
        rows = self._context.journal.endpoints_of(container.id)
        if not rows:
            raise Conflict(
                f"container {container.name} is not connected to any network",
                hint=f"netagent network connect NETWORK {container.name}",
            )
        return next((row for row in rows if row.ports), rows[0])

    def _network_of(self, endpoint: Endpoint) -> Network:
        network = self._context.snapshot().networks.get(endpoint.network_id)
        if network is None:
            raise NotFound(f"network {short(endpoint.network_id)} not found", hint="it was removed a moment ago")
        return network

    def _exclusive(self, container: Container) -> AbstractAsyncContextManager[None]:
        owner = self._containers if container.kind is ContainerKind.RUN else self._attachments
        return owner.exclusive(container)

    def _tell(self, action: str, container: Container, ports: Iterable[PortMapping]) -> None:
        shown = ",".join(map(str, ports))
        self._context.events.publish("container", action, container.id, name=container.name, ports=shown)


def _refuse_modes(container: Container) -> None:
    if container.mode is NetworkMode.CONTAINER:
        raise Conflict(
            "conflicting options: port publishing and the container type network mode",
            hint="publish ports of the container whose network it shares",
        )
    if container.mode is NetworkMode.HOST:
        raise Conflict(
            f"container {container.name} uses the host's network", hint="its ports are the host's; nothing to publish"
        )
    if container.kind is ContainerKind.DOCKER:
        raise Conflict(f"container {container.name} is Docker's", hint="give -p to docker run")
    if container.kind is ContainerKind.CNI:
        raise Conflict(
            f"container {container.name} is connected by its runtime through CNI", hint="change its configuration there"
        )


def _refuse_unpublished(container: Container, pattern: PortMapping, rows: Iterable[Endpoint]) -> None:
    """Raise NotFound, in Docker's words, if a port of ``pattern`` is not published."""
    ports = [port for row in rows for port in row.ports]
    matched = {port.container_port + i for port in ports for i in port.matching(pattern)}
    missing = next((port for port in pattern.container_ports if port not in matched), None)
    if missing is not None:
        at = f" at port {pattern.host_port + missing - pattern.container_port}" if pattern.host_port else ""
        raise NotFound(
            f"no public port '{missing}/{pattern.protocol}' published for {container.name}{at}",
            hint=f"netagent port {container.name} shows what is",
        )


def _without(ports: Iterable[PortMapping], pattern: PortMapping) -> tuple[PortMapping, ...]:
    return tuple(left for port in ports for left in port.without(port.matching(pattern)))


def _difference(before: Iterable[PortMapping], after: Iterable[PortMapping]) -> tuple[PortMapping, ...]:
    """Return the host ports of ``before`` that are not in ``after``, in parts where a mapping was split."""
    kept = set(after)
    kept_slots = {slot for mapping in kept for slot in mapping.slots}
    return tuple(
        mapping.part(indices[0], len(indices))
        for mapping in before
        if mapping not in kept
        for is_kept, group in groupby(enumerate(mapping.slots), lambda numbered: numbered[1] in kept_slots)
        if not is_kept
        for indices in ([index for index, _ in group],)
    )
