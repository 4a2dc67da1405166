"""The service ``Hosts``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.api.convert import encode_host, encode_host_details
from netagent.api.shield import Shield
from netagent.services.hosts import HostService
from netagent.v1 import hosts_pb2, hosts_pb2_grpc


class HostsServicer(hosts_pb2_grpc.HostsServicer):
    """The hosts of the cluster."""

    def __init__(self, hosts: HostService, shield: Shield) -> None:
        self._hosts = hosts
        self._shield = shield

    async def List(self, request: hosts_pb2.ListHostsRequest, context: object) -> hosts_pb2.ListHostsResponse:
        """Return all hosts."""
        return hosts_pb2.ListHostsResponse(hosts=[encode_host(view) for view in self._hosts.list()])

    async def Inspect(self, request: hosts_pb2.InspectHostRequest, context: object) -> hosts_pb2.HostDetails:
        """Return one host with everything it holds."""
        return encode_host_details(self._hosts.find(request.name))

    async def Remove(self, request: hosts_pb2.RemoveHostRequest, context: object) -> hosts_pb2.RemoveHostResponse:
        """Remove a host that is gone for good."""
        removal = await self._shield.finish(self._hosts.remove(request.name, force=request.force))
        return hosts_pb2.RemoveHostResponse(
            host=encode_host(removal.host), addresses=removal.addresses, endpoints=removal.endpoints
        )
