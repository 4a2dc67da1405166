"""The service ``Agent``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.api.convert import encode_info
from netagent.api.shield import Shield
from netagent.services.info import InfoService
from netagent.services.membership import MembershipService
from netagent.services.rebuilding import RebuildingService
from netagent.v1 import agent_pb2, agent_pb2_grpc


class AgentServicer(agent_pb2_grpc.AgentServicer):
    """Who answers, how it is doing, and what it can do for the store."""

    def __init__(
        self, info: InfoService, membership: MembershipService, rebuilding: RebuildingService, shield: Shield
    ) -> None:
        self._info = info
        self._membership = membership
        self._rebuilding = rebuilding
        self._shield = shield

    async def Info(self, request: agent_pb2.InfoRequest, context: object) -> agent_pb2.InfoResponse:
        """Say who answers."""
        return encode_info(self._info.info())

    async def RebuildStore(
        self, request: agent_pb2.RebuildStoreRequest, context: object
    ) -> agent_pb2.RebuildStoreResponse:
        """Write back what the store has lost."""
        rebuilt = await self._shield.finish(self._rebuilding.rebuild())
        return agent_pb2.RebuildStoreResponse(networks=rebuilt.networks, claims=rebuilt.claims)

    async def AcceptStore(
        self, request: agent_pb2.AcceptStoreRequest, context: object
    ) -> agent_pb2.AcceptStoreResponse:
        """Belong to another cluster from now on."""
        return agent_pb2.AcceptStoreResponse(cluster=self._membership.accept())
