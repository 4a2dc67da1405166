"""The service ``Firewall``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.services.exposure import Exposure, ExposureService
from netagent.v1 import firewall_pb2, firewall_pb2_grpc


class FirewallServicer(firewall_pb2_grpc.FirewallServicer):
    """What can be reached."""

    def __init__(self, exposure: ExposureService) -> None:
        self._exposure = exposure

    async def Exposure(self, request: firewall_pb2.ExposureRequest, context: object) -> firewall_pb2.ExposureResponse:
        """Return all ways to this host's containers."""
        view = await self._exposure.view()
        return firewall_pb2.ExposureResponse(ways=map(_encode, view.ways), warnings=view.warnings)


def _encode(way: Exposure) -> firewall_pb2.Exposure:
    return firewall_pb2.Exposure(
        container=way.container,
        container_id=way.container_id,
        network=way.network,
        reach=way.reach,
        version=way.version,
        protocol=way.protocol,
        address=way.address,
        ports=way.ports,
        target=way.target,
        rule=way.rule,
        sources=way.sources,
        peers=way.peers,
        obstacles=[firewall_pb2.Obstacle(where=o.where, certain=o.certain) for o in way.obstacles],
    )
