"""Plain routes: a peer's block by the peer's underlay address, without a tunnel, between hosts on one segment.

IPv4 blocks go by IPv6 addresses where the hosts share no segment of IPv4 (RFC 5549); the other way there is none.
"""

from collections.abc import Iterator

from netagent.drivers.driver import Local, Peer
from netagent.model.address import Address
from netagent.model.host import Host
from netagent.model.network import Network
from netagent.plan.desired import Route


def is_on_segment(network: Network, local: Host, peer: Host) -> bool:
    """Tell whether plain routes between two hosts can carry every family of ``network``."""
    versions = {subnet.prefix.version for subnet in network.subnets}
    return bool(local.interface) and all(_gateway(local, peer, version) is not None for version in versions)


def _gateway(local: Host, peer: Host, version: int) -> Address | None:
    """Return the address of ``peer`` on this host's segment that packets of IP ``version`` can go by."""
    by = next((v for v in (version, 6) if local.shares_segment_with(peer, v)), None)
    return None if by is None else peer.underlay_for(by)


def plain_routes(local: Local, peer: Peer) -> Iterator[Route]:
    """Yield one route per block and per fixed address of ``peer``, by its underlay address."""
    for prefix in peer.prefixes():
        gateway = _gateway(local.host, peer.host, prefix.version)
        if gateway is not None:
            yield Route(
                destination=prefix,
                device=local.host.interface,
                gateway=gateway,
                source=local.own_for(prefix.version),
            )
