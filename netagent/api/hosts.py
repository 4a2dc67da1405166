"""The service ``Hosts``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.api.convert import encode_host, encode_host_details
from netagent.api.shield import Shield
from netagent.services.host_blocks import HostBlockService
from netagent.services.hosts import HostService
from netagent.v1 import hosts_pb2, hosts_pb2_grpc


class HostsServicer(hosts_pb2_grpc.HostsServicer):
    """The hosts of the cluster."""

    def __init__(self, hosts: HostService, blocks: HostBlockService, shield: Shield) -> None:
        self._hosts = hosts
        self._blocks = blocks
        self._shield = shield

    async def List(self, request: hosts_pb2.ListHostsRequest, context: object) -> hosts_pb2.ListHostsResponse:
        """Return all hosts."""
        return hosts_pb2.ListHostsResponse(hosts=[encode_host(view) for view in self._hosts.list()])

    async def Inspect(self, request: hosts_pb2.InspectHostRequest, context: object) -> hosts_pb2.HostDetails:
        """Return one host with everything it holds."""
        return encode_host_details(self._hosts.find(request.name))

    async def Reserve(
        self, request: hosts_pb2.ReserveBlocksRequest, context: object
    ) -> hosts_pb2.ReserveBlocksResponse:
        """Give a host blocks in advance, or have it give them back."""
        act = self._blocks.release if request.release else self._blocks.reserve
        blocks = await self._shield.finish(act(request.host, request.network, request.block))
        return hosts_pb2.ReserveBlocksResponse(
            blocks=[
                hosts_pb2.HostBlock(network=request.network, prefix=str(b.prefix), state=b.state, epoch=b.epoch)
                for b in blocks
            ]
        )

    async def Drain(self, request: hosts_pb2.DrainHostRequest, context: object) -> hosts_pb2.DrainHostResponse:
        """Drain a host, or end it."""
        host = await self._shield.finish(self._blocks.drain(request.name, stop=request.stop))
        return hosts_pb2.DrainHostResponse(name=host.name)

    async def Remove(self, request: hosts_pb2.RemoveHostRequest, context: object) -> hosts_pb2.RemoveHostResponse:
        """Remove a host that is gone for good."""
        removal = await self._shield.finish(self._hosts.remove(request.name, force=request.force))
        return hosts_pb2.RemoveHostResponse(
            host=encode_host(removal.host), addresses=removal.addresses, endpoints=removal.endpoints
        )
