"""The service ``Agent``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.api.convert import encode_info
from netagent.api.shield import Shield
from netagent.services.copying import CopyService
from netagent.services.info import InfoService
from netagent.services.membership import MembershipService
from netagent.services.rebuilding import RebuildingService
from netagent.v1 import agent_pb2, agent_pb2_grpc


class AgentServicer(agent_pb2_grpc.AgentServicer):
    """Who answers, how it is doing, and what it can do for the store."""

    def __init__(
        self,
        info: InfoService,
        membership: MembershipService,
        rebuilding: RebuildingService,
        copying: CopyService,
        shield: Shield,
    ) -> None:
        self._info = info
        self._membership = membership
        self._rebuilding = rebuilding
        self._copying = copying
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

    async def ExportStore(
        self, request: agent_pb2.ExportStoreRequest, context: object
    ) -> agent_pb2.ExportStoreResponse:
        """Return what hosts share."""
        copy = await self._copying.export()
        records = (agent_pb2.StoreRecord(key=key, value=value) for key, value in copy.records.items())
        return agent_pb2.ExportStoreResponse(cluster=copy.cluster, revision=copy.revision, records=records)

    async def ImportStore(
        self, request: agent_pb2.ImportStoreRequest, context: object
    ) -> agent_pb2.ImportStoreResponse:
        """Write it back, or move this host's own into the cluster's store."""
        if request.own:
            work = self._copying.carry_over()
        else:
            work = self._copying.restore({r.key: r.value for r in request.records}, force=request.force)
        copied = await self._shield.finish(work)
        return agent_pb2.ImportStoreResponse(networks=copied.networks, records=copied.records, kept=copied.kept)
