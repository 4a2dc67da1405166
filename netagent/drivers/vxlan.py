"""The driver ``vxlan``: one VXLAN device per network, routed, with nothing flooded and nothing learned.

A remote block is one route via the peer's own address in the network, ``onlink`` on the device; that address has one
permanent neighbour (the peer's VTEP MAC) and the MAC one forwarding entry (the peer's underlay address). So the
tables grow with hosts, not with containers, and go on working while the agent is away.

The VTEP MAC is a function of host id and VNI: it survives reboots and re-made devices without being announced
(flannel #533, #1036, #1788 are what comes of announcing it).
"""

from collections.abc import Iterator, Sequence
from types import MappingProxyType

from netagent.drivers.driver import Local, Peer
from netagent.errors import Bug
from netagent.model.address import Address, Mac, derive_mac, host_prefix
from netagent.model.host import Host
from netagent.model.ids import HostId, short
from netagent.model.network import Network, Scope
from netagent.plan.desired import (
    ALIAS_PREFIX,
    FdbEntry,
    InterfaceAddress,
    Link,
    Neighbour,
    Route,
    State,
    Vxlan,
)
from netagent.plan.mtu import VXLAN_OVERHEAD


def vtep_mac(host_id: HostId, vni: int) -> Mac:
    """Return the MAC of a host's VXLAN device for ``vni``."""
    return derive_mac("vtep", host_id, str(vni))


def _underlay(host: Host) -> Address:
    if not host.underlay:
        raise Bug(f"host {host.name} has no underlay address")
    return host.underlay[0]


class VxlanDriver:
    """Hosts reach each other through UDP port 4789, whatever lies between them."""

    name = "vxlan"
    scope = Scope.GLOBAL
    needs_number = True

    def overhead(self, host: Host) -> int:
        return VXLAN_OVERHEAD[_underlay(host).version]

    def device(self, network: Network) -> str | None:
        return f"nav{short(network.id)}"

    def render(self, network: Network, local: Local, peers: Sequence[Peer]) -> State:
        if network.vni is None:
            raise Bug(f"network {network.name} has no VNI")
        device = self.device(network)
        assert device is not None
        underlay = _underlay(local.host)
        link = Link(
            name=device,
            kind=Vxlan(vni=network.vni, local=underlay),
            mtu=local.mtu,
            alias=f"{ALIAS_PREFIX}{network.id}",
            mac=vtep_mac(local.host.id, network.vni),
        )
        # A single-address prefix: the own address is a source and a next hop, never a connected range.
        addresses = frozenset(
            InterfaceAddress(device=device, address=own, length=own.max_prefixlen) for own in local.own
        )
        reachable = [p for p in peers if p.host.underlay_for(underlay.version) is not None]
        return State(
            links=MappingProxyType({device: link}),
            addresses=addresses,
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
            routes=frozenset(route for peer in reachable for route in _routes(device, local, peer)),
        )


def _routes(device: str, local: Local, peer: Peer) -> Iterator[Route]:
    """Yield one route per block and per fixed address of ``peer``, via the peer's own address of that family."""
    gateways: dict[int, Address] = {}
    for block in peer.blocks:
        if block.own_address is None:
            continue
        gateways.setdefault(block.prefix.version, block.own_address)
        if block.prefix.version == 6:
            # For IPv6 ``onlink`` is not enough: a next hop that another device's prefix covers is refused
            # (ip6_route_check_nh_onlink, net/ipv6/route.c). A route of its own puts it on this device.
            yield Route(destination=host_prefix(block.own_address), device=device, source=local.own_for(6))
        yield Route(
            destination=block.prefix,
            device=device,
            gateway=block.own_address,
            source=local.own_for(block.prefix.version),
            onlink=True,
        )
    for claim in peer.fixed:
        gateway = gateways.get(claim.address.version)
        if gateway is not None:
            yield Route(
                destination=host_prefix(claim.address),
                device=device,
                gateway=gateway,
                source=local.own_for(claim.address.version),
                onlink=True,
            )
