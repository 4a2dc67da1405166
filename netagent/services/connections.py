"""Connections: containers added to networks and taken off them while they go on running.

Whoever made the container owns the lock under which it changes; a container of a CNI runtime is that one's alone.
"""

from contextlib import AbstractAsyncContextManager

from netagent.errors import AlreadyExists, Conflict, NotFound
from netagent.model.container import Container, ContainerKind, ContainerState, NetworkMode
from netagent.model.endpoint import Endpoint
from netagent.model.network import Network
from netagent.services.attachments import AttachmentService
from netagent.services.containers import ContainerService
from netagent.services.context import Context
from netagent.services.endpoints import EndpointService
from netagent.services.interfaces import choose_interfaces
from netagent.services.network_texts import parse_driver_option, split_networks
from netagent.services.networks import NetworkService
from netagent.services.requests import Connection, NewConnection
from netagent.services.wanted import Wanted, parse_wanted, refuse_same_routes

_NONE_WITH_OTHERS = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


class ConnectionService:
    """``network connect`` and ``network disconnect``."""

    def __init__(
        self,
        context: Context,
        networks: NetworkService,
        endpoints: EndpointService,
        containers: ContainerService,
        attachments: AttachmentService,
    ) -> None:
        self._context = context
        self._networks = networks
        self._endpoints = endpoints
        self._containers = containers
        self._attachments = attachments

    async def connect(self, request: NewConnection) -> str:
        """Add a container to a network and return the name of its interface there.

        One that is stopped gets it with its next start.
        """
        container = self._containers.find(request.container)
        network = self._networks.find(request.network)
        _refuse_modes(container, network)
        async with self._exclusive(container):
            container = self._containers.find(container.id)
            rows = self._context.journal.endpoints_of(container.id)
            want = self._parse(request, container, network, rows)
            if container.kind is ContainerKind.RUN and container.state is ContainerState.EXITED:
                await self._endpoints.add_dormant(container, want)
            else:
                await self._endpoints.attach(container, (want,))
                self._containers.files.refresh(container)
        return want.interface

    def _parse(
        self, request: NewConnection, container: Container, network: Network, rows: tuple[Endpoint, ...]
    ) -> Wanted:
        if any(row.network_id == network.id for row in rows):
            raise AlreadyExists(
                f"endpoint with name {container.name} already exists in network {network.name}",
                hint=f"netagent network disconnect {network.name} {container.name}",
            )
        connection = Connection(
            networks=(network.name,),
            addresses=request.addresses,
            mac=request.mac,
            aliases=request.aliases,
            rate_in=request.rate_in,
            rate_out=request.rate_out,
            gw_priority=request.gw_priority,
            link_local=request.link_local,
        )
        asked = request.interface
        for option in request.driver_options:
            asked = parse_driver_option(option)
        used = {row.interface for row in rows}
        interfaces = choose_interfaces(split_networks(connection), (network,), used=used, first=asked)
        (want,) = parse_wanted(connection, (network,), interfaces)
        networks = self._context.snapshot().networks
        present = ((networks[e.network_id], r) for e in rows if e.network_id in networks for r in e.given_routes)
        refuse_same_routes((*present, *((network, route) for route in want.routes)))
        return want

    async def disconnect(self, network_name: str, container_name: str, *, force: bool = False) -> None:
        """Take a container off a network; with ``force`` it is no error if it is not connected, or not there."""
        try:
            container = self._containers.find(container_name)
        except NotFound:
            if force:
                return
            raise
        network = self._networks.find(network_name)
        if network.name == NetworkMode.HOST and container.mode is NetworkMode.HOST:
            raise Conflict(
                "cannot disconnect container from host network - container was created in host network mode",
                hint=f"netagent rm {container.name}, then run it with another --network",
            )
        _refuse_foreign(container)
        async with self._exclusive(container):
            rows = self._context.journal.endpoints_of(container.id)
            row = next((row for row in rows if row.network_id == network.id), None)
            if row is None:
                if force:
                    return
                raise Conflict(
                    f"container {container.id} is not connected to network {network.name}",
                    hint=f"netagent inspect {container.name} shows its networks",
                )
            await self._endpoints.detach((row,))
            self._containers.files.refresh(container)

    def _exclusive(self, container: Container) -> AbstractAsyncContextManager[None]:
        owner = self._containers if container.kind is ContainerKind.RUN else self._attachments
        return owner.exclusive(container)


def _refuse_modes(container: Container, network: Network) -> None:
    """Refuse what the container's network mode rules out, in Docker's words."""
    if network.name == NetworkMode.HOST:
        raise Conflict(
            "cannot connect container to host network - container must be created in host network mode",
            hint="netagent run --network host",
        )
    if NetworkMode.NONE in (container.mode, network.name):
        raise Conflict(_NONE_WITH_OTHERS, hint="run the container with another --network")
    if container.mode is not NetworkMode.NETWORKS:
        raise Conflict(
            "container sharing network namespace with another container or host cannot be connected to any other"
            " network",
            hint=f"run the container with --network {network.name}",
        )
    _refuse_foreign(container)


def _refuse_foreign(container: Container) -> None:
    if container.kind is ContainerKind.DOCKER:
        raise Conflict(f"container {container.name} is Docker's", hint="docker network connect or disconnect")
    if container.kind is ContainerKind.CNI:
        raise Conflict(
            f"container {container.name} is connected by its runtime through CNI", hint="change its configuration there"
        )
