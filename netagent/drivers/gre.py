"""The driver ``gre``: inner Ethernet in GRE (RFC 2784, protocol 0x6558) and the network's number as key (RFC 2890).

Two forms that understand each other; each host uses the one it has:

* The kernel's: one ``gretap external`` device a host, for all networks. A remote block is one route that carries key
  and peer (``encap ip id KEY dst PEER``) via the peer's own address, which has one permanent neighbour. The kernel does
  not check the key on receipt, so the firewall knows a packet's network by its inner source.
* Open vSwitch's: one device a network, the local port of a bridge that checks key and peer. A peer is one forwarding
  entry, which is two flows.

The MAC is a function of the host alone: the kernel's form has one device for all networks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType

from netagent.drivers.driver import Local, Peer
from netagent.drivers.onlink import routes_by_own_address
from netagent.errors import Bug
from netagent.model.address import Address, Mac, derive_mac
from netagent.model.host import Host
from netagent.model.ids import HostId, short
from netagent.model.network import Network, Scope
from netagent.plan.desired import ALIAS_PREFIX, Encap, FdbEntry, Gretap, Link, Neighbour, OvsGre, Route, State
from netagent.plan.mtu import GRE_OVERHEAD, overlay_mtu

KERNEL, OVS = "kernel", "ovs"
BACKENDS = (KERNEL, OVS)
_FEATURE = {4: "gre", 6: "gre6"}
"""What ``Host.features`` calls the kernel's form, by the underlay's IP version."""


def gre_mac(host_id: HostId) -> Mac:
    """Return the MAC of a host's GRE devices."""
    return derive_mac("gre", host_id)


def form_of(network: Network, host: Host) -> str:
    """Return which form ``host`` uses: as asked for, else the kernel's where the kernel has it."""
    return network.backend or (KERNEL if _FEATURE[network.underlay] in host.features else OVS)


def _shared_device(network: Network) -> str:
    return f"nagre{network.underlay}"


class GreDriver:
    """Hosts reach each other through IP protocol 47."""

    name = "gre"
    scope = Scope.GLOBAL
    needs_number = True

    def overhead(self, network: Network) -> int:
        return GRE_OVERHEAD[network.underlay]

    def device(self, network: Network, local: Host) -> str | None:
        return f"nao{short(network.id)}" if form_of(network, local) == OVS else None

    def ways(self, network: Network, local: Host) -> tuple[str, ...]:
        return (_shared_device(network),) if form_of(network, local) == KERNEL else ()

    def obstacle(self, network: Network, local: Host, peer: Host) -> str | None:
        if peer.underlay_for(network.underlay) is None:
            return f"have no underlay address of IPv{network.underlay} in common"
        return None

    def render(self, network: Network, local: Local, peers: Sequence[Peer]) -> State:
        if network.vni is None:
            raise Bug(f"network {network.name} has no key")
        underlay = local.host.underlay_for(network.underlay)
        if underlay is None:
            return State()
        reachable = [p for p in peers if p.host.underlay_for(network.underlay) is not None]
        if form_of(network, local.host) == OVS:
            return _through_switch(f"nao{short(network.id)}", network, network.vni, underlay, local, reachable)
        return _through_kernel(network, network.vni, underlay, local, reachable)


def _through_switch(
    device: str, network: Network, key: int, underlay: Address, local: Local, peers: Sequence[Peer]
) -> State:
    link = Link(
        name=device,
        kind=OvsGre(key=key, local=underlay),
        mtu=local.mtu,
        alias=f"{ALIAS_PREFIX}{network.id}",
        mac=gre_mac(local.host.id),
    )
    return State(
        links=MappingProxyType({device: link}),
        neighbours=frozenset(_neighbours(device, peers)),
        fdb=frozenset(
            FdbEntry(device=device, mac=gre_mac(peer.host.id), destination=destination)
            for peer in peers
            if (destination := peer.host.underlay_for(network.underlay)) is not None
        ),
        routes=frozenset(route for peer in peers for route in routes_by_own_address(device, local, peer)),
    )


def _through_kernel(network: Network, key: int, underlay: Address, local: Local, peers: Sequence[Peer]) -> State:
    device = _shared_device(network)
    link = Link(
        name=device,
        kind=Gretap(version=network.underlay),
        # The device is every network's: what one of them takes less is a matter of its containers' interfaces.
        mtu=overlay_mtu(local.host.mtu, GRE_OVERHEAD[network.underlay]),
        alias=f"{ALIAS_PREFIX}gre",
        mac=gre_mac(local.host.id),
    )
    return State(
        links=MappingProxyType({device: link}),
        neighbours=frozenset(_neighbours(device, peers)),
        routes=frozenset(_encapsulated(network, key, underlay, local, peers)),
    )


def _encapsulated(
    network: Network, key: int, underlay: Address, local: Local, peers: Sequence[Peer]
) -> Iterator[Route]:
    for peer in peers:
        destination = peer.host.underlay_for(network.underlay)
        if destination is not None:
            encap = Encap(key=key, source=underlay, destination=destination)
            for route in routes_by_own_address(_shared_device(network), local, peer):
                yield replace(route, encap=encap)


def _neighbours(device: str, peers: Sequence[Peer]) -> Iterator[Neighbour]:
    for peer in peers:
        for block in peer.blocks:
            if block.own_address is not None:
                yield Neighbour(device=device, address=block.own_address, mac=gre_mac(peer.host.id))
