"""The service ``Stats``."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from netagent.model.counters import Counters
from netagent.services.stats import StatsService
from netagent.v1 import stats_pb2, stats_pb2_grpc


class StatsServicer(stats_pb2_grpc.StatsServicer):
    """Counters of containers and networks."""

    def __init__(self, stats: StatsService) -> None:
        self._stats = stats

    async def Containers(
        self, request: stats_pb2.ContainerStatsRequest, context: object
    ) -> stats_pb2.ContainerStatsResponse:
        """Return the counters of containers."""
        found = await self._stats.containers(tuple(request.names))
        return stats_pb2.ContainerStatsResponse(
            endpoints=[
                stats_pb2.EndpointStats(
                    container_id=stats.container.id,
                    container_name=stats.container.name,
                    network_id=stats.endpoint.network_id,
                    network_name=stats.network.name if stats.network else "",
                    interface=stats.endpoint.interface,
                    counters=_encode(stats.counters),
                    ports={port: _encode(counters) for port, counters in stats.ports.items()},
                )
                for stats in found
            ]
        )

    async def Networks(self, request: stats_pb2.NetworkStatsRequest, context: object) -> stats_pb2.NetworkStatsResponse:
        """Return the counters of networks."""
        found = await self._stats.networks(tuple(request.names))
        return stats_pb2.NetworkStatsResponse(
            networks=[
                stats_pb2.NetworkStats(
                    id=stats.network.id,
                    name=stats.network.name,
                    driver=stats.network.driver,
                    containers=stats.containers,
                    counters=_encode(stats.counters),
                    tunnel=_encode(stats.tunnel) if stats.tunnel else None,
                )
                for stats in found
            ]
        )


def _encode(counters: Counters) -> stats_pb2.Counters:
    return stats_pb2.Counters(
        rx_bytes=counters.rx_bytes,
        rx_packets=counters.rx_packets,
        rx_dropped=counters.rx_dropped,
        tx_bytes=counters.tx_bytes,
        tx_packets=counters.tx_packets,
        tx_dropped=counters.tx_dropped,
    )
