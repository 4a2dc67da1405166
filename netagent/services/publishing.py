"""Ports published and taken back while their container goes on running."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from netagent.errors import Conflict, NotFound
from netagent.model.container import Container, ContainerKind, NetworkMode
from netagent.model.endpoint import Endpoint
from netagent.model.port import PortMapping, parse_published
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
            if not endpoint.in_kernel:
                self._ports.check(wanted)
                await self._endpoints.set_ports(endpoint, (*endpoint.ports, *wanted))
                return wanted
            taken = self._ports.take(wanted)
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
            leaving: list[tuple[Endpoint, tuple[PortMapping, ...]]] = []
            rows = self._context.journal.endpoints_of(container.id)
            for pattern in asked:
                if not any(_matches(pattern, port) for row in rows for port in row.ports):
                    raise NotFound(
                        f"no public port '{pattern.key}' published for {container.name}",
                        hint=f"netagent port {container.name} shows what is",
                    )
            for row in rows:
                gone = tuple(port for port in row.ports if any(_matches(pattern, port) for pattern in asked))
                if gone:
                    leaving.append((row, gone))
            for row, gone in leaving:
                await self._endpoints.set_ports(row, tuple(port for port in row.ports if port not in gone))
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

    def _exclusive(self, container: Container) -> AbstractAsyncContextManager[None]:
        owner = self._containers if container.kind is ContainerKind.RUN else self._attachments
        return owner.exclusive(container)

    def _tell(self, action: str, container: Container, ports: Iterable[PortMapping]) -> None:
        shown = ",".join(map(str, ports))
        self._context.events.publish("container", action, container.id, name=container.name, ports=shown)


def _refuse_modes(container: Container) -> None:
    if container.mode is NetworkMode.CONTAINER:
        raise Conflict("conflicting options: port publishing and the container type network mode")
    if container.mode is NetworkMode.HOST:
        raise Conflict(
            f"container {container.name} uses the host's network", hint="its ports are the host's; nothing to publish"
        )
    if container.kind is ContainerKind.CNI:
        raise Conflict(
            f"container {container.name} is connected by its runtime through CNI", hint="change its configuration there"
        )


def _matches(pattern: PortMapping, port: PortMapping) -> bool:
    return (
        pattern.key == port.key
        and pattern.host_port in (0, port.host_port)
        and pattern.host_address in (None, port.host_address)
    )
