"""The service ``Hosts``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.api.convert import encode_host
from netagent.services.hosts import HostService
from netagent.v1 import hosts_pb2, hosts_pb2_grpc


class HostsServicer(hosts_pb2_grpc.HostsServicer):
    """The hosts of the cluster."""

    def __init__(self, hosts: HostService) -> None:
        self._hosts = hosts

    async def List(self, request: hosts_pb2.ListHostsRequest, context: object) -> hosts_pb2.ListHostsResponse:
        """Return all hosts."""
        return hosts_pb2.ListHostsResponse(hosts=[encode_host(view) for view in self._hosts.list()])
