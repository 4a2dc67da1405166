"""Limits of containers' rates, changed while they go on running."""

from contextlib import AbstractAsyncContextManager

from netagent.errors import Conflict, NotFound
from netagent.model.container import Container, ContainerKind
from netagent.model.endpoint import Endpoint
from netagent.model.rate import Rate, parse_rate
from netagent.services.attachments import AttachmentService
from netagent.services.containers import ContainerService
from netagent.services.context import Context
from netagent.services.endpoints import EndpointService
from netagent.services.names import find_by_name
from netagent.services.requests import LimitChange


class LimitService:
    """``update`` of containers. One that is stopped keeps its new limits for its next start."""

    def __init__(
        self,
        context: Context,
        endpoints: EndpointService,
        containers: ContainerService,
        attachments: AttachmentService,
    ) -> None:
        self._context = context
        self._endpoints = endpoints
        self._containers = containers
        self._attachments = attachments

    async def update(self, change: LimitChange) -> Container:
        """Change the limits of a container in one of its networks or in all, and return the container."""
        container = self._containers.find(change.container)
        rate_in = _parse(change.rate_in, what="--rate-in")
        rate_out = _parse(change.rate_out, what="--rate-out")
        async with self._exclusive(container):
            rows = self._rows(container, change.network)
            for row in rows:
                wanted_in = row.rate_in if change.rate_in is None else rate_in
                wanted_out = row.rate_out if change.rate_out is None else rate_out
                if (wanted_in, wanted_out) != (row.rate_in, row.rate_out):
                    await self._endpoints.set_limits(row, wanted_in, wanted_out)
        self._context.events.publish("container", "update", container.id, name=container.name)
        return container

    def _rows(self, container: Container, network_name: str) -> tuple[Endpoint, ...]:
        """Return the endpoints that are meant; refuse if there is none."""
        rows = self._context.journal.endpoints_of(container.id)
        if not rows:
            raise Conflict(
                f"container {container.name} is not connected to any network",
                hint="limits belong to its connections; host and none have none",
            )
        if not network_name:
            return rows
        network = find_by_name(
            network_name,
            self._context.snapshot().networks.values(),
            what="network",
            missing=f"network {network_name} not found",
            hint="netagent network ls shows those there are",
        )
        chosen = tuple(row for row in rows if row.network_id == network.id)
        if not chosen:
            raise NotFound(
                f"container {container.name} is not connected to network {network.name}",
                hint=f"netagent inspect {container.name} shows its networks",
            )
        return chosen

    def _exclusive(self, container: Container) -> AbstractAsyncContextManager[None]:
        owner = self._containers if container.kind is ContainerKind.RUN else self._attachments
        return owner.exclusive(container)


def _parse(text: str | None, *, what: str) -> Rate | None:
    return parse_rate(text, what=what) if text else None
