"""The service ``Networks``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from collections.abc import AsyncIterator

from netagent.api.convert import (
    decode_network_change,
    decode_new_connection,
    decode_new_network,
    encode_network,
    encode_network_details,
)
from netagent.api.shield import Shield
from netagent.services.all import Services
from netagent.v1 import networks_pb2, networks_pb2_grpc


class NetworksServicer(networks_pb2_grpc.NetworksServicer):
    """Networks, made and removed under a shield."""

    def __init__(self, services: Services, shield: Shield) -> None:
        self._networks = services.networks
        self._removal = services.network_removal
        self._connections = services.connections
        self._info = services.info
        self._shield = shield

    async def Create(
        self, request: networks_pb2.CreateNetworkRequest, context: object
    ) -> networks_pb2.CreateNetworkResponse:
        """Make a network."""
        network = await self._shield.finish(self._networks.create(decode_new_network(request)))
        return networks_pb2.CreateNetworkResponse(id=network.id)

    async def List(
        self, request: networks_pb2.ListNetworksRequest, context: object
    ) -> networks_pb2.ListNetworksResponse:
        """Return all networks."""
        usage = self._networks.usage()
        return networks_pb2.ListNetworksResponse(
            networks=[encode_network(network, used_by=usage[network.id]) for network in self._networks.list()]
        )

    async def Inspect(
        self, request: networks_pb2.InspectNetworkRequest, context: object
    ) -> networks_pb2.NetworkDetails:
        """Return one network with all that is known of it."""
        return encode_network_details(self._networks.view(request.name), self_id=self._info.info().host.id)

    async def Remove(
        self, request: networks_pb2.RemoveNetworkRequest, context: object
    ) -> AsyncIterator[networks_pb2.RemoveNetworkProgress]:
        """Remove a network, telling which hosts are waited for. Each step is finished even if nobody listens."""
        steps = self._removal.remove(request.name, force=request.force)
        while (waiting_for := await self._shield.finish(_next(steps))) is not None:
            yield networks_pb2.RemoveNetworkProgress(waiting_for=waiting_for)
        yield networks_pb2.RemoveNetworkProgress(done=True, taken_from=self._removal.taken_from(request.name))

    async def Update(self, request: networks_pb2.UpdateNetworkRequest, context: object) -> networks_pb2.Network:
        """Change a network."""
        return encode_network(await self._shield.finish(self._networks.update(decode_network_change(request))))

    async def Connect(
        self, request: networks_pb2.ConnectContainerRequest, context: object
    ) -> networks_pb2.ConnectContainerResponse:
        """Add a container to a network."""
        interface = await self._shield.finish(self._connections.connect(decode_new_connection(request)))
        return networks_pb2.ConnectContainerResponse(interface=interface)

    async def Disconnect(
        self, request: networks_pb2.DisconnectContainerRequest, context: object
    ) -> networks_pb2.DisconnectContainerResponse:
        """Take a container off a network."""
        await self._shield.finish(self._connections.disconnect(request.network, request.container, force=request.force))
        return networks_pb2.DisconnectContainerResponse()


async def _next(steps: AsyncIterator[tuple[str, ...]]) -> tuple[str, ...] | None:
    return await anext(steps, None)
