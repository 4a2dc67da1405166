"""The service ``Agent``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.api.convert import encode_info
from netagent.services.info import InfoService
from netagent.v1 import agent_pb2, agent_pb2_grpc


class AgentServicer(agent_pb2_grpc.AgentServicer):
    """Who answers, and how it is doing."""

    def __init__(self, info: InfoService) -> None:
        self._info = info

    async def Info(self, request: agent_pb2.InfoRequest, context: object) -> agent_pb2.InfoResponse:
        """Say who answers."""
        return encode_info(self._info.info())
