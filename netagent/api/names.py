"""The service ``Names``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.services.resolving import ResolvingService
from netagent.v1 import names_pb2, names_pb2_grpc


class NamesServicer(names_pb2_grpc.NamesServicer):
    """What DNS answers."""

    def __init__(self, resolving: ResolvingService) -> None:
        self._resolving = resolving

    async def Resolve(self, request: names_pb2.ResolveRequest, context: object) -> names_pb2.ResolveResponse:
        """Look a name up."""
        answers = await self._resolving.resolve(request.name, tuple(request.types), container=request.container)
        return names_pb2.ResolveResponse(
            records=[
                names_pb2.ResourceRecord(name=each.name, type=each.type, ttl=each.ttl, data=each.data)
                for each in answers
            ]
        )
