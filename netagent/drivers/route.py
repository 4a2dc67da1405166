"""The driver ``route``: static routes by the peers' underlay addresses; no tunnel, the underlay's full MTU.

It works between hosts on one segment. One that lies behind a router is refused, or with ``fallback=vxlan`` reached
through a tunnel; then the whole network has the tunnel's MTU, because a packet's size is chosen before its way.
"""

from collections.abc import Sequence

from netagent.drivers.driver import Local, Peer
from netagent.drivers.plain import is_on_segment, plain_routes
from netagent.drivers.vxlan import VxlanDriver
from netagent.model.host import Host
from netagent.model.network import Network, Scope
from netagent.plan.desired import State

_FALLBACK = VxlanDriver()


class RouteDriver:
    """Hosts on one segment route to each other's blocks."""

    name = "route"
    scope = Scope.GLOBAL
    needs_number = True

    def overhead(self, network: Network) -> int:
        return _FALLBACK.overhead(network) if network.fallback else 0

    def device(self, network: Network, local: Host) -> str | None:
        return _FALLBACK.device(network, local) if network.fallback else None

    def ways(self, network: Network, local: Host) -> tuple[str, ...]:
        return tuple(name for name in (self.device(network, local), local.interface) if name)

    def obstacle(self, network: Network, local: Host, peer: Host) -> str | None:
        if is_on_segment(network, local, peer):
            return None
        if network.fallback:
            return _FALLBACK.obstacle(network, local, peer)
        return "are not on one segment, and the driver route needs no router in between"

    def render(self, network: Network, local: Local, peers: Sequence[Peer]) -> State:
        if network.fallback:
            return _FALLBACK.render_beside_routes(network, local, peers)
        near = (peer for peer in peers if is_on_segment(network, local.host, peer.host))
        return State(routes=frozenset(route for peer in near for route in plain_routes(local, peer)))
