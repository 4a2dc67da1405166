"""The driver ``vxlan``: one VXLAN device per network, routed, with nothing flooded and nothing learned.

A remote block is one route via the peer's own address in the network, ``onlink`` on the device; that address has one
permanent neighbour (the peer's VTEP MAC) and the MAC one forwarding entry (the peer's underlay address). So the
tables grow with hosts, not with containers, and go on working while the agent is away.

The VTEP MAC is a function of host id and VNI: it survives reboots and re-made devices without being announced
(flannel #533, #1036, #1788 are what comes of announcing it).

With ``direct-routing`` peers on the same segment get a plain route instead. The device knows them all the same.
"""

from collections.abc import Sequence, Set
from dataclasses import replace
from types import MappingProxyType

from netagent.drivers.driver import Local, Peer
from netagent.drivers.onlink import routes_by_own_address
from netagent.drivers.plain import is_on_segment, plain_routes
from netagent.errors import Bug
from netagent.model.address import Mac, derive_mac
from netagent.model.host import Host
from netagent.model.ids import HostId, short
from netagent.model.network import Network, Scope
from netagent.plan.desired import (
    ALIAS_PREFIX,
    FdbEntry,
    Link,
    Neighbour,
    State,
    Vxlan,
)
from netagent.plan.mtu import VXLAN_OVERHEAD


def vtep_mac(host_id: HostId, vni: int) -> Mac:
    """Return the MAC of a host's VXLAN device for ``vni``."""
    return derive_mac("vtep", host_id, str(vni))


class VxlanDriver:
    """Hosts reach each other through UDP port 4789, whatever lies between them."""

    name = "vxlan"
    scope = Scope.GLOBAL
    needs_number = True

    def overhead(self, network: Network) -> int:
        return VXLAN_OVERHEAD[network.underlay]

    def device(self, network: Network, local: Host) -> str:
        return f"nav{short(network.id)}"

    def ways(self, network: Network, local: Host) -> tuple[str, ...]:
        return (self.device(network, local), local.interface) if network.direct_routing and local.interface else ()

    def obstacle(self, network: Network, local: Host, peer: Host) -> str | None:
        if peer.underlay_for(network.underlay) is None:
            return f"have no underlay address of IPv{network.underlay} in common"
        return None

    def render(self, network: Network, local: Local, peers: Sequence[Peer]) -> State:
        if network.direct_routing:
            return self.render_beside_routes(network, local, peers)
        return self._render(network, local, peers)

    def render_beside_routes(self, network: Network, local: Local, peers: Sequence[Peer]) -> State:
        """Return the same with plain routes to the peers that are on this host's segment."""
        near = [peer for peer in peers if is_on_segment(network, local.host, peer.host)]
        state = self._render(network, local, peers, untunnelled=frozenset(peer.host.id for peer in near))
        return replace(state, routes=state.routes | {route for peer in near for route in plain_routes(local, peer)})

    def _render(
        self, network: Network, local: Local, peers: Sequence[Peer], *, untunnelled: Set[HostId] = frozenset()
    ) -> State:
        if network.vni is None:
            raise Bug(f"network {network.name} has no VNI")
        device = self.device(network, local.host)
        underlay = local.host.underlay_for(network.underlay)
        if underlay is None:
            return State()
        link = Link(
            name=device,
            kind=Vxlan(vni=network.vni, local=underlay),
            mtu=local.mtu,
            alias=f"{ALIAS_PREFIX}{network.id}",
            mac=vtep_mac(local.host.id, network.vni),
        )
        reachable = [p for p in peers if p.host.underlay_for(underlay.version) is not None]
        return State(
            links=MappingProxyType({device: link}),
            neighbours=frozenset(
                Neighbour(device=device, address=block.own_address, mac=vtep_mac(peer.host.id, network.vni))
                for peer in reachable
                for block in peer.blocks
                if block.own_address is not None
            ),
            fdb=frozenset(
                FdbEntry(device=device, mac=vtep_mac(peer.host.id, network.vni), destination=destination)
                for peer in reachable
                if (destination := peer.host.underlay_for(underlay.version)) is not None
            ),
            routes=frozenset(
                route
                for peer in reachable
                if peer.host.id not in untunnelled
                for route in routes_by_own_address(device, local, peer)
            ),
        )
