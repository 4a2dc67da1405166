"""What leads to a network's other hosts, so that each one's part can be rendered without the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from netagent.drivers import driver_named
from netagent.drivers.driver import Local, Peer
from netagent.firewall import lanes, routed, tunnel
from netagent.firewall.ruleset import merge
from netagent.model.address import Prefix, host_prefix
from netagent.model.host import Host
from netagent.model.ids import HostId
from netagent.model.network import Network
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import Announcement, Gretap, OvsGre, Route, State, TunnelSource
from netagent.plan.names import bridge_mac, bridge_name
from netagent.plan.union import union


def ways_of(network: Network) -> tuple[Network, ...]:
    """Return a network as each of its ways wants to see it: the present one, and before it the one that is left."""
    present = network.by(network.way)
    return (present,) if network.before is None else (network.by(network.before), present)


def devices_of(snapshot: Snapshot, network: Network) -> tuple[str, ...]:
    """Return the tunnel devices of a network's own on this host, by each of its ways."""
    found = (driver_named(by.driver).device(by, snapshot.host) for by in ways_of(network))
    return tuple(dict.fromkeys(device for device in found if device is not None))


def between_hosts(snapshot: Snapshot, network: Network, local: Local, peers: Sequence[Peer]) -> State:
    """Return what leads to the peers, by routes that say how large packets may be where that is less than usual.

    A peer's own address is asked, so its route lets packets of any size through.
    """
    state = _without_offload(snapshot, network, _by_its_ways(snapshot, network, local, peers))
    state = replace(state, tunnel_sources=frozenset(_tunnel_sources(snapshot, network, state, peers)))
    if not snapshot.paths.narrow or network.before is not None:
        return state
    usual: set[Route] = set()
    limited: set[Route] = set()
    for peer in peers:
        limits = {v: snapshot.paths.narrow.get((network.id, peer.host.id, v)) for v in (4, 6)}
        if not any(limits.values()):
            continue
        part = driver_named(network.driver).render(network, local, [peer])
        asked = {route for route in _to_own_addresses(part, peer) if limits[route.destination.version]}
        usual |= part.routes
        limited |= asked | {replace(route, mtu=limits[route.destination.version]) for route in part.routes - asked}
    return replace(state, routes=(state.routes - usual) | limited)


def _without_offload(snapshot: Snapshot, network: Network, state: State) -> State:
    """Return ``state`` with devices that leave no checksums to others where these were found to spoil them."""
    corrupting = {identity: snapshot.networks.get(identity) for identity in snapshot.paths.corrupting}
    if not corrupting:
        return state
    # The kernel's GRE device is all networks'.
    is_shared = any(other is not None and other.driver == network.driver for other in corrupting.values())
    links = {
        name: replace(link, offload=False)
        if network.id in corrupting or (is_shared and isinstance(link.kind, Gretap))
        else link
        for name, link in state.links.items()
    }
    return replace(state, links=MappingProxyType(links))


def _by_its_ways(snapshot: Snapshot, network: Network, local: Local, peers: Sequence[Peer]) -> State:
    """Return what leads to the peers. While a network is moved: both ways, and to each peer the routes of one.

    A peer that this host has not turned to yet is asked by the new way: its own address alone is routed by it. Of a
    move that was called back no more is left than a host must take packets by, because it had said that it would.
    """
    present = driver_named(network.driver)
    was_prepared = any(block.prepared == network.moves - 1 for block in snapshot.own_blocks_in(network.id))
    if network.before is None or (network.back and not was_prepared):
        return present.render(network.by(network.way), local, peers)
    old, new = ways_of(network)
    turned = [peer for peer in peers if snapshot.has_turned(network, peer.host.id)]
    others = [peer for peer in peers if not snapshot.has_turned(network, peer.host.id)]
    before = driver_named(old.driver)
    by_old, by_new = before.render(old, local, others).routes, present.render(new, local, turned).routes
    asked = frozenset(route for peer in others for route in _to_own_addresses(present.render(new, local, [peer]), peer))
    taken = {route.destination for route in asked}
    both = union([before.render(old, local, peers), present.render(new, local, peers)])
    return replace(both, routes=by_new | asked | {route for route in by_old if route.destination not in taken})


def _tunnel_sources(
    snapshot: Snapshot, network: Network, state: State, peers: Sequence[Peer]
) -> Iterator[TunnelSource]:
    """Yield what the switches behind tunnel devices in ``state`` may take from each peer: what lies behind it."""
    for name, link in state.links.items():
        if isinstance(link.kind, OvsGre):
            for host, prefix in _behind(snapshot, network, peers):
                if (end := host.underlay_for(link.kind.local.version)) is not None:
                    yield TunnelSource(device=name, peer=end, prefix=prefix)


def _to_own_addresses(state: State, peer: Peer) -> Iterator[Route]:
    """Yield the routes of ``state`` to a block of ``peer``, narrowed to the peer's own address in it."""
    routes = {route.destination: route for route in state.routes}
    for block in peer.blocks:
        if block.own_address is not None and block.prefix in routes:
            narrow = host_prefix(block.own_address)
            yield routes.get(narrow, replace(routes[block.prefix], destination=narrow))


def device_elements(snapshot: Snapshot, network: Network, state: State) -> Mapping[str, frozenset[str]]:
    """Return what the firewall must know of a network's tunnel devices in ``state``, whatever peers there are."""
    ways = _shared_ways(snapshot, network)
    devices, bridge = devices_of(snapshot, network), bridge_name(network)
    tunnels = (lanes.tunnel_elements(bridge, device, is_shared=network.bridge is not None) for device in devices)
    shared = lanes.way_elements(bridge, ways.difference(devices), is_shared=network.bridge is not None)
    return merge((tunnel.device_elements(state), {"ways": frozenset(ways)}, *tunnels, shared))


def peer_elements(
    snapshot: Snapshot, network: Network, state: State, peers: Sequence[Peer]
) -> Mapping[str, frozenset[str]]:
    """Return what the firewall must know of some peers, to which ``state`` leads."""
    behind = tuple(_behind(snapshot, network, peers))
    elements = [tunnel.peer_elements(state, network.vni, behind)]
    if _shared_ways(snapshot, network):
        prefixes = {prefix for _, prefix in behind}
        elements.append(routed.elements(prefixes, bridge_name(network), devices_of(snapshot, network)))
    return merge(elements)


def peer_announcements(snapshot: Snapshot, network: Network, peers: Iterable[Peer]) -> frozenset[Announcement]:
    """Return what neighbours here must be told of peers' fixed addresses once they are there.

    After a move they must ask the bridge, which answers for it. IPv6 ones always do.
    """
    bridge, mac = bridge_name(network), bridge_mac(network.id, snapshot.host.id)
    return frozenset(
        Announcement(device=bridge, address=claim.address, mac=mac)
        for peer in peers
        for claim in peer.fixed
        if claim.address.version == 4
    )


def _shared_ways(snapshot: Snapshot, network: Network) -> set[str]:
    """Return the interfaces that packets of peers come in by where devices do not tell networks apart."""
    ways = {name for by in ways_of(network) for name in driver_named(by.driver).ways(by, snapshot.host)}
    if network.before is not None:
        # A peer may have turned before this host or after it.
        ways.update(devices_of(snapshot, network))
    return ways


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


def peers_of(snapshot: Snapshot, network: Network, among: Iterable[HostId] | None = None) -> tuple[Peer, ...]:
    """Return the other hosts that hold blocks of a network, all or those ``among``, with what lies behind each."""
    own = frozenset(snapshot.host.underlay)
    holdings = snapshot.claims_in(network.id).holdings
    return tuple(
        # Blocks are in an order of their own: the first of each family is the peer's gateway for fixed addresses.
        Peer(host=host, blocks=holding.blocks, fixed=holding.fixed)
        for owner in (holdings if among is None else among)
        if (holding := holdings.get(owner)) is not None
        and holding.blocks
        and owner != snapshot.host.id
        and (host := snapshot.hosts.get(owner)) is not None
        # A tunnel to this host's own address would lead back here.
        and own.isdisjoint(host.underlay)
    )
