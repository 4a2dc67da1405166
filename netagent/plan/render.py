"""From the snapshot to the state the kernel should be in.

A network is in this host's kernel once the host holds a block of it; until then it costs nothing here. The pieces are
the same for every driver: a bridge with the network's gateway address, proxy ARP towards everything that is not on
this host, and one veth per endpoint. What leads to other hosts comes from the driver.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from netagent.drivers import driver_named
from netagent.drivers.driver import Local, Peer
from netagent.firewall import admin, apart, isolate, masquerade, publish, resolve, routed, spoof, tunnel
from netagent.firewall.ruleset import merge, render_ruleset
from netagent.model.address import Address, Mac, Prefix, derive_mac, host_prefix, parse_address, parse_prefix
from netagent.model.claims import NOTHING
from netagent.model.endpoint import Endpoint
from netagent.model.host import Host
from netagent.model.ids import EndpointId, HostId, NetworkId, short
from netagent.model.link_local import LENGTHS
from netagent.model.network import Network, NetworkState, Scope, Subnet
from netagent.model.snapshot import Snapshot
from netagent.plan.answering import source_routes
from netagent.plan.desired import (
    ALIAS_PREFIX,
    Announcement,
    Bridge,
    InterfaceAddress,
    Link,
    Route,
    Ruleset,
    State,
    SysctlName,
    Veth,
)
from netagent.plan.limit import render_limits
from netagent.plan.linking import link_elements
from netagent.plan.mtu import overlay_mtu

_K = TypeVar("_K")
_V = TypeVar("_V")
BRIDGE_LINK_LOCAL = parse_address("fe80::1")
"""The host asks for IPv6 neighbours with a link-local address, and its bridge's own is not usable for a second or two
after the bridge came up (duplicate address detection); until then containers' first packets would be lost."""
_EVERYWHERE = {4: parse_prefix("0.0.0.0/0"), 6: parse_prefix("::/0")}


def bridge_name(network: Network) -> str:
    """Return the name of a network's bridge."""
    return network.bridge or f"nab{short(network.id)}"


def veth_name(endpoint_id: EndpointId) -> str:
    """Return the name of the host's end of an endpoint's veth pair."""
    return f"{spoof.PORT_PREFIX}{short(endpoint_id)}"


def bridge_mac(network_id: NetworkId, host_id: HostId) -> Mac:
    """Return the MAC of a network's bridge on one host: its containers' gateway."""
    return derive_mac("bridge", network_id, host_id)


def veth_mac(endpoint_id: EndpointId) -> Mac:
    """Return the MAC of the host's end of an endpoint's veth pair."""
    return derive_mac("veth", endpoint_id)


def network_mtu(network: Network, snapshot: Snapshot) -> int:
    """Return the MTU of a network's interfaces: as asked for, else what the narrowest host's underlay leaves."""
    if network.mtu is not None:
        return network.mtu
    overhead = max(driver_named(by.driver).overhead(by) for by in _ways(network))
    hosts = {snapshot.host.id: snapshot.host}
    # A host that nobody can reach has no say.
    hosts.update(
        (owner, host)
        for owner, holding in snapshot.claims_in(network.id).holdings.items()
        if holding.blocks and (host := snapshot.hosts.get(owner)) is not None and host.underlay
    )
    return overlay_mtu(min(host.mtu for host in hosts.values()), overhead)


def render_everything(snapshot: Snapshot) -> State:
    """Return all that this host's kernel should hold."""
    parts = [render_network(snapshot, network) for network in networks_here(snapshot)]
    used = {endpoint.network_id for endpoint in snapshot.endpoints.values()} & snapshot.networks.keys()
    cut_off = snapshot.cut_off
    mtus = {identity: network_mtu(snapshot.networks[identity], snapshot) for identity in used}
    parts.extend(
        render_endpoint(snapshot, endpoint, mtu=mtus[endpoint.network_id])
        for endpoint in snapshot.endpoints.values()
        if endpoint.in_kernel and endpoint.network_id in mtus and endpoint.id not in cut_off
    )
    return replace(with_tables(union(parts)), admin=admin.CHAINS)


def with_tables(state: State) -> State:
    """Return ``state`` with the whole firewall tables around its elements."""
    return replace(state, ruleset=render_ruleset((state.ruleset.elements,) if state.ruleset else ()))


def networks_here(snapshot: Snapshot) -> tuple[Network, ...]:
    """Return the networks that have a place in this host's kernel."""
    return tuple(network for network in snapshot.networks.values() if _is_here(snapshot, network))


def _is_here(snapshot: Snapshot, network: Network) -> bool:
    """Tell whether a network has a place in this host's kernel; one being deleted only while it is in use."""
    if network.state is NetworkState.DELETING and not any(e.in_kernel for e in snapshot.endpoints_in(network.id)):
        return False
    is_used = any(endpoint.in_kernel for endpoint in snapshot.endpoints_in(network.id))
    return is_used or bool(snapshot.own_blocks_in(network.id))


def render_network(snapshot: Snapshot, network: Network) -> State:
    """Return a network's part of the host: bridge, tunnel, routes to its peers, and its firewall elements."""
    mtu = network_mtu(network, snapshot)
    bridge = bridge_name(network)
    own = tuple(b.own_address for b in snapshot.own_blocks_in(network.id) if b.own_address is not None)
    peers = peers_of(snapshot, network)
    state = _between_hosts(snapshot, network, Local(host=snapshot.host, own=own, mtu=mtu), peers)
    elements = merge(
        (
            *(
                isolate.elements(bridge, device, internal=network.internal, icc=network.icc)
                for device in _devices(snapshot, network) or (None,)
            ),
            masquerade.elements(network),
            tunnel.elements(state, _behind(snapshot, network, peers)),
            _routed_elements(snapshot, network, peers),
        )
    )
    held = frozenset(
        Route(destination=host_prefix(claim.address), device=bridge)
        for claim in snapshot.claims_in(network.id).holdings.get(snapshot.host.id, NOTHING).fixed
    )
    own_part = State(
        links=MappingProxyType({} if network.bridge else {bridge: _bridge_link(network, snapshot, mtu)}),
        addresses=frozenset(() if network.bridge else _bridge_addresses(network, bridge, own)),
        routes=held if network.scope is Scope.GLOBAL else frozenset(),
        sysctls=MappingProxyType(dict(_sysctls(bridge, network))),
        ruleset=Ruleset(elements=elements),
        # After a move the neighbours here must ask the bridge, which answers for it. IPv6 ones always do.
        announcements=frozenset(
            Announcement(device=bridge, address=claim.address, mac=bridge_mac(network.id, snapshot.host.id))
            for peer in peers
            for claim in peer.fixed
            if claim.address.version == 4
        ),
    )
    return union([state, own_part])


def _ways(network: Network) -> tuple[Network, ...]:
    """Return a network as each of its ways wants to see it: the present one, and before it the one that is left."""
    present = network.by(network.way)
    return (present,) if network.before is None else (network.by(network.before), present)


def _devices(snapshot: Snapshot, network: Network) -> tuple[str, ...]:
    found = (driver_named(by.driver).device(by, snapshot.host) for by in _ways(network))
    return tuple(dict.fromkeys(device for device in found if device is not None))


def _between_hosts(snapshot: Snapshot, network: Network, local: Local, peers: Sequence[Peer]) -> State:
    """Return what leads to the peers. While a network is moved: both ways, and to each peer the routes of one.

    A peer that this host has not turned to yet is asked by the new way: its own address alone is routed by it.
    """
    present = driver_named(network.driver)
    if network.before is None:
        return present.render(network, local, peers)
    old, new = _ways(network)
    turned = [peer for peer in peers if snapshot.has_turned(network, peer.host.id)]
    others = [peer for peer in peers if not snapshot.has_turned(network, peer.host.id)]
    before = driver_named(old.driver)
    by_old, by_new = before.render(old, local, others).routes, present.render(new, local, turned).routes
    asked = frozenset(route for peer in others for route in _to_own_addresses(present.render(new, local, [peer]), peer))
    taken = {route.destination for route in asked}
    both = union([before.render(old, local, peers), present.render(new, local, peers)])
    return replace(both, routes=by_new | asked | {route for route in by_old if route.destination not in taken})


def _to_own_addresses(state: State, peer: Peer) -> Iterator[Route]:
    """Yield the routes of ``state`` to a block of ``peer``, narrowed to the peer's own address in it."""
    routes = {route.destination: route for route in state.routes}
    for block in peer.blocks:
        if block.own_address is not None and block.prefix in routes:
            narrow = host_prefix(block.own_address)
            yield routes.get(narrow, replace(routes[block.prefix], destination=narrow))


def _bridge_link(network: Network, snapshot: Snapshot, mtu: int) -> Link:
    return Link(
        name=bridge_name(network),
        kind=Bridge(),
        mtu=mtu,
        alias=f"{ALIAS_PREFIX}{network.id}",
        mac=bridge_mac(network.id, snapshot.host.id),
    )


def _bridge_addresses(network: Network, bridge: str, own: Iterable[Address]) -> Iterable[InterfaceAddress]:
    for subnet in network.subnets:
        yield InterfaceAddress(device=bridge, address=subnet.gateway, length=subnet.prefix.prefixlen)
    if network.scope is Scope.GLOBAL:
        # A single-address prefix: the own address is a source and a next hop, never a connected range.
        yield from (InterfaceAddress(device=bridge, address=a, length=a.max_prefixlen) for a in own)
    if any(subnet.prefix.version == 6 for subnet in network.subnets):
        yield InterfaceAddress(device=bridge, address=BRIDGE_LINK_LOCAL, length=64)


def _routed_elements(snapshot: Snapshot, network: Network, peers: Iterable[Peer]) -> Mapping[str, frozenset[str]]:
    """Return what the firewall must know of the peers' addresses where devices do not tell networks apart."""
    ways = {name for by in _ways(network) for name in driver_named(by.driver).ways(by, snapshot.host)}
    devices = _devices(snapshot, network)
    if network.before is not None:
        # A peer may have turned before this host or after it.
        ways.update(devices)
    if not ways:
        return {}
    interfaces = (bridge_name(network), *devices)
    return routed.elements({prefix for _, prefix in _behind(snapshot, network, peers)}, interfaces, ways)


def _behind(snapshot: Snapshot, network: Network, peers: Iterable[Peer]) -> Iterator[tuple[Host, Prefix]]:
    """Yield each peer with what lies behind it.

    One element inside another would make the kernel refuse all: a claim in a block is nobody's by the rules.
    """
    claims = snapshot.claims_in(network.id)
    for peer in peers:
        yield from ((peer.host, block.prefix) for block in peer.blocks)
        for claim in peer.fixed:
            subnet = network.subnet_of(claim.address)
            if subnet is None or claims.block_at(subnet.block_around(claim.address)) is None:
                yield peer.host, host_prefix(claim.address)


def _sysctls(bridge: str, network: Network) -> Iterable[tuple[SysctlName, str]]:
    has_ipv6 = any(subnet.prefix.version == 6 for subnet in network.subnets)
    # First: switching the whole host resets settings of its interfaces (inet_forward_change, net/ipv4/devinet.c).
    yield ("net", "ipv4", "ip_forward"), "1"
    if has_ipv6:
        yield ("net", "ipv6", "conf", "all", "forwarding"), "1"
    conf = ("net", "ipv4", "conf", bridge)
    if network.bridge:
        # Somebody else's, perhaps with a LAN behind it: only what published ports on 127.0.0.1 need.
        yield (*conf, "route_localnet"), "1"
        return
    yield (*conf, "proxy_arp"), "1"
    # Its default delays every first packet by up to 0.8 s (parp_redo and proxy_queue, net/ipv4/arp.c).
    yield ("net", "ipv4", "neigh", bridge, "proxy_delay"), "0"
    # For ports published on 127.0.0.1; the table's chain "guard" is in place before.
    yield (*conf, "route_localnet"), "1"
    if network.scope is Scope.LOCAL:
        # Without ICC neighbours' addresses are answered for as well, and what goes to them is routed and so filtered.
        yield (*conf, "proxy_arp_pvlan"), "0" if network.icc else "1"
    # A container's redirects would be believed otherwise.
    yield (*conf, "accept_redirects"), "0"
    yield ("net", "ipv6", "conf", bridge, "accept_ra"), "0"
    # An IPv4-only network has no business with link-local traffic either.
    yield ("net", "ipv6", "conf", bridge, "disable_ipv6"), "0" if has_ipv6 else "1"


def peers_of(snapshot: Snapshot, network: Network) -> tuple[Peer, ...]:
    """Return the other hosts that hold blocks of a network, with what lies behind each."""
    own = frozenset(snapshot.host.underlay)
    return tuple(
        # Blocks are in an order of their own: the first of each family is the peer's gateway for fixed addresses.
        Peer(host=snapshot.hosts[owner], blocks=holding.blocks, fixed=holding.fixed)
        for owner, holding in snapshot.claims_in(network.id).holdings.items()
        if holding.blocks
        and owner != snapshot.host.id
        and owner in snapshot.hosts
        # A tunnel to this host's own address would lead back here.
        and own.isdisjoint(snapshot.hosts[owner].underlay)
    )


def render_endpoint(snapshot: Snapshot, endpoint: Endpoint, *, mtu: int | None = None) -> State:
    """Return one endpoint's part: its veth pair, what is inside the sandbox, and its published ports.

    What is inside a sandbox that is not ours to fill, as dockerd's, is left to its owner. ``mtu`` is that of its
    network, if the caller has worked it out already.
    """
    network = snapshot.networks[endpoint.network_id]
    name = veth_name(endpoint.id)
    link = Link(
        name=name,
        kind=Veth(
            sandbox=endpoint.sandbox,
            interface=endpoint.interface,
            peer_mac=endpoint.mac,
            sandbox_inode=endpoint.sandbox_inode,
            # Where bridged frames pass the NAT hooks (br_netfilter), a request of a container to its own published
            # port is translated before the bridge forwards it, and must go back where it came from.
            hairpin=bool(endpoint.ports),
        ),
        mtu=network_mtu(network, snapshot) if mtu is None else mtu,
        alias=f"{ALIAS_PREFIX}{endpoint.id}",
        mac=veth_mac(endpoint.id),
        master=bridge_name(network),
    )
    addresses: set[InterfaceAddress] = set()
    routes: set[Route] = set()
    for given in endpoint.addresses if endpoint.sandbox else ():
        subnet = network.subnet_of(given.address)
        if subnet is None:
            continue
        addresses.add(
            InterfaceAddress(
                device=endpoint.interface,
                address=given.address,
                length=subnet.prefix.prefixlen,
                where=endpoint.sandbox,
            )
        )
        routes.update(_routes_inside(endpoint, network, subnet))
    if endpoint.sandbox:
        addresses.update(_link_locals(endpoint))
    routes.update(
        # The bridge would answer ARP for what the host routes elsewhere (arp_fwd_proxy, net/ipv4/arp.c).
        Route(destination=host_prefix(address), device=bridge_name(network))
        for address in endpoint.link_local
        if address.version == 4
    )
    limits = render_limits(endpoint, name, link.mtu)
    return State(
        links=MappingProxyType({name: link, **limits.links}),
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        shapers=limits.shapers,
        redirects=limits.redirects,
        announcements=frozenset(
            Announcement(device=a.device, address=a.address, mac=endpoint.mac, where=a.where) for a in addresses
        ),
        source_routes=frozenset(source_routes(snapshot, endpoint, network)),
        ruleset=Ruleset(
            elements=merge(
                (
                    publish.elements(endpoint),
                    spoof.elements(name, endpoint),
                    apart.elements(name, icc=network.icc),
                    link_elements(snapshot, endpoint, network),
                    resolve.elements(endpoint, network),
                )
            )
        ),
    )


def _link_locals(endpoint: Endpoint) -> Iterator[InterfaceAddress]:
    for address in endpoint.link_local:
        yield InterfaceAddress(
            device=endpoint.interface, address=address, length=LENGTHS[address.version], where=endpoint.sandbox
        )


def _routes_inside(endpoint: Endpoint, network: Network, subnet: Subnet) -> Iterable[Route]:
    """Yield the routes of a container through a subnet's gateway.

    IPv4 finds the other hosts' containers by the bridge's proxy ARP. For IPv6 there is none: two routes, each for
    half of the subnet and so more specific than the connected one, send all but its own address through the host.
    """
    via = Route(
        destination=_EVERYWHERE[subnet.prefix.version],
        device=endpoint.interface,
        gateway=subnet.gateway,
        # The kernel looks the gateway up as if it were anybody, and the halves below lead to it by itself.
        onlink=subnet.prefix.version == 6,
        where=endpoint.sandbox,
    )
    if not network.bridge and subnet.prefix.version == 6 and subnet.prefix.prefixlen < subnet.prefix.max_prefixlen:
        for half in subnet.prefix.subnets(prefixlen_diff=1):
            yield replace(via, destination=half)
    if subnet.prefix.version in endpoint.ways_out and not network.internal:
        yield via


def union(parts: Iterable[State]) -> State:
    """Return one state that holds everything of ``parts``."""
    states = tuple(parts)
    return State(
        links=_merged(state.links for state in states),
        addresses=frozenset().union(*(state.addresses for state in states)),
        routes=frozenset().union(*(state.routes for state in states)),
        neighbours=frozenset().union(*(state.neighbours for state in states)),
        fdb=frozenset().union(*(state.fdb for state in states)),
        shapers=frozenset().union(*(state.shapers for state in states)),
        redirects=frozenset().union(*(state.redirects for state in states)),
        announcements=frozenset().union(*(state.announcements for state in states)),
        source_routes=frozenset().union(*(state.source_routes for state in states)),
        sysctls=_merged(state.sysctls for state in states),
        ruleset=Ruleset(elements=merge(state.ruleset.elements for state in states if state.ruleset)),
    )


def _merged(mappings: Iterable[Mapping[_K, _V]]) -> Mapping[_K, _V]:
    return MappingProxyType({key: value for mapping in mappings for key, value in mapping.items()})
