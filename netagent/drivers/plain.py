"""Plain routes: a peer's block by the peer's underlay address, without a tunnel, between hosts on one segment."""

from collections.abc import Iterator

from netagent.drivers.driver import Local, Peer
from netagent.model.host import Host
from netagent.model.network import Network
from netagent.plan.desired import Route


def is_on_segment(network: Network, local: Host, peer: Host) -> bool:
    """Tell whether plain routes between two hosts can carry every family of ``network``."""
    versions = {subnet.prefix.version for subnet in network.subnets}
    return bool(local.interface) and all(local.shares_segment_with(peer, version) for version in versions)


def plain_routes(local: Local, peer: Peer) -> Iterator[Route]:
    """Yield one route per block and per fixed address of ``peer``, by its underlay address of that family."""
    for prefix in peer.prefixes():
        gateway = peer.host.underlay_for(prefix.version)
        if gateway is not None:
            yield Route(
                destination=prefix,
                device=local.host.interface,
                gateway=gateway,
                source=local.own_for(prefix.version),
            )
