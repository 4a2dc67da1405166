"""From the snapshot to the state the kernel should be in.

A network is in this host's kernel once the host holds a block of it; until then it costs nothing here. The pieces are
the same for every driver: a bridge with the network's gateway address, proxy ARP towards everything that is not on
this host, and one veth per endpoint. What leads to other hosts comes from the driver.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import MappingProxyType

from netagent.drivers import driver_named
from netagent.drivers.driver import Local
from netagent.firewall import admin, apart, direct, isolate, masquerade, publish, resolve, spoof
from netagent.firewall.ruleset import merge, render_ruleset
from netagent.model.address import Address, host_prefix, parse_address
from netagent.model.claims import NOTHING
from netagent.model.endpoint import Endpoint
from netagent.model.ids import HostId
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
from netagent.plan.names import bridge_mac, bridge_name, veth_mac, veth_name
from netagent.plan.peers import (
    between_hosts,
    device_elements,
    devices_of,
    peer_announcements,
    peer_elements,
    peers_of,
    ways_of,
)
from netagent.plan.union import union

BRIDGE_LINK_LOCAL = parse_address("fe80::1")
"""The host asks for IPv6 neighbours with a link-local address, and its bridge's own is not usable for a second or two
after the bridge came up (duplicate address detection); until then containers' first packets would be lost."""


def network_mtu(network: Network, snapshot: Snapshot) -> int:
    """Return the MTU of a network's interfaces: as asked for, else what the narrowest host's underlay leaves."""
    if network.mtu is not None:
        return network.mtu
    overhead = max(driver_named(by.driver).overhead(by) for by in ways_of(network))
    holdings = snapshot.claims_in(network.id).holdings

    def has_say(identity: HostId) -> bool:
        # Not one that nobody can reach.
        return bool(holdings.get(identity, NOTHING).blocks and snapshot.hosts[identity].underlay)

    own = snapshot.host
    narrower = (m for m, hosts in snapshot.hosts.narrower(own.mtu) if any(has_say(h) for h in hosts if h != own.id))
    return overlay_mtu(next(narrower, own.mtu), overhead)


def render_everything(snapshot: Snapshot) -> State:
    """Return all that this host's kernel should hold."""
    parts = [render_network(snapshot, network) for network in networks_here(snapshot)]
    used = snapshot.endpoints.networks & snapshot.networks.keys()
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
    local = local_part(snapshot, network, mtu)
    peers = peers_of(snapshot, network)
    state = between_hosts(snapshot, network, local, peers)
    elements = merge(
        (
            *(
                isolate.elements(bridge, device, internal=network.internal, icc=network.icc)
                for device in devices_of(snapshot, network) or (None,)
            ),
            masquerade.elements(network),
            direct.network_elements(network, bridge),
            device_elements(snapshot, network, state),
            peer_elements(snapshot, network, state, peers),
        )
    )
    held = frozenset(
        Route(destination=host_prefix(claim.address), device=bridge)
        for claim in snapshot.claims_in(network.id).holdings.get(snapshot.host.id, NOTHING).fixed
    )
    own_part = State(
        links=MappingProxyType({} if network.bridge else {bridge: _bridge_link(network, snapshot, mtu)}),
        addresses=frozenset(() if network.bridge else _bridge_addresses(network, bridge, local.own)),
        routes=held if network.scope is Scope.GLOBAL else frozenset(),
        sysctls=MappingProxyType(dict(_sysctls(bridge, network))),
        ruleset=Ruleset(elements=elements),
        announcements=peer_announcements(snapshot, network, peers),
    )
    return union([state, own_part])


def local_part(snapshot: Snapshot, network: Network, mtu: int) -> Local:
    """Return this host as drivers see it in a network whose interfaces have this ``mtu``."""
    own = tuple(b.own_address for b in snapshot.own_blocks_in(network.id) if b.own_address is not None)
    return Local(host=snapshot.host, own=own, mtu=mtu)


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
                    publish.elements(endpoint, routed=network.routed),
                    direct.endpoint_elements(endpoint, network),
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
        destination=subnet.prefix,
        device=endpoint.interface,
        gateway=subnet.gateway,
        # The kernel looks the gateway up as if it were anybody, and the halves below lead to it by itself.
        onlink=subnet.prefix.version == 6,
        where=endpoint.sandbox,
    )
    if not network.bridge and subnet.prefix.version == 6 and subnet.prefix.prefixlen < subnet.prefix.max_prefixlen:
        for half in subnet.prefix.subnets(prefixlen_diff=1):
            yield replace(via, destination=half)
    for route in endpoint.routes_beyond(network, subnet):
        yield replace(via, destination=route.destination, gateway=route.gateway)
