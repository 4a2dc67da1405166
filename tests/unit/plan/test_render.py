"""What the kernel of one host should hold, shown as the plan that builds it from nothing."""

from dataclasses import replace

import pytest

from netagent.drivers.vxlan import vtep_mac
from netagent.model.claims import Claims
from netagent.model.endpoint import EndpointState
from netagent.model.host_index import Hosts
from netagent.model.network import NetworkState
from netagent.plan.desired import Ruleset, State
from netagent.plan.diff import diff
from netagent.plan.render import network_mtu, render_endpoint, render_everything
from tests.support.world import (
    H1,
    H2,
    H3,
    LOCALNET,
    STATICNET,
    a_block,
    a_claim,
    a_host,
    a_local_network,
    an_endpoint,
    an_overlay,
    two_hosts,
)

BRIDGE = "nab" + "a" * 12
TUNNEL = "nav" + "a" * 12


def plan_lines(state: State) -> list[str]:
    return str(diff(state, State())).splitlines()


def test_an_overlay_network_on_one_of_two_hosts() -> None:
    lines = plan_lines(render_everything(two_hosts(an_overlay())))
    peer = vtep_mac(H2, 4097)
    assert lines == [
        "nft add table netagent-admin (input, forward, output)",
        "nft replace tables netagent (25 chains, 12 elements)",
        f"link add {TUNNEL} type vxlan mtu 1450",
        f"link add {BRIDGE} type bridge mtu 1450",
        "sysctl net.ipv4.ip_forward = 1",
        f"sysctl net.ipv4.conf.{BRIDGE}.proxy_arp = 1",
        f"sysctl net.ipv4.neigh.{BRIDGE}.proxy_delay = 0",
        f"sysctl net.ipv4.conf.{BRIDGE}.route_localnet = 1",
        f"sysctl net.ipv4.conf.{BRIDGE}.accept_redirects = 0",
        f"sysctl net.ipv6.conf.{BRIDGE}.accept_ra = 0",
        f"sysctl net.ipv6.conf.{BRIDGE}.disable_ipv6 = 1",
        f"address add 192.168.0.1/16 dev {BRIDGE}",
        f"address add 192.168.1.0/32 dev {BRIDGE}",
        f"neighbour replace 192.168.2.0 lladdr {peer} dev {TUNNEL}",
        f"fdb replace {peer} dst 198.18.0.2 dev {TUNNEL}",
        f"route replace 192.168.2.0/24 via 192.168.2.0 dev {TUNNEL} src 192.168.1.0 onlink",
    ]


def test_the_order_in_which_blocks_were_heard_of_changes_nothing() -> None:
    """After a restart it is another one: what leads by a host's first block would turn to a later one for nothing."""
    snapshot = two_hosts(an_overlay(), fixed=(a_claim("192.168.0.2", H2),))
    more = (a_block("192.168.7.0/24", H1), a_block("192.168.3.0/24", H2), a_block("192.168.9.0/24", H2))
    blocks = (*snapshot.blocks, *more)
    states = [
        render_everything(replace(snapshot, claims=Claims.of((*order, *snapshot.fixed))))
        for order in (blocks, blocks[::-1])
    ]
    assert states[0] == states[1]
    routes = {str(route) for route in states[0].routes}
    assert f"192.168.0.2/32 via 192.168.2.0 dev {TUNNEL} src 192.168.1.0 onlink" in routes


def test_a_shared_interface_has_its_lanes_and_a_tunnel_its_own_where_peers_are_reached_by_both() -> None:
    """One element a pair of interfaces: a second one with another lane would make the kernel refuse all."""
    local = replace(a_host(1), interface="eth0")
    snapshot = replace(two_hosts(replace(an_overlay(), direct_routing=True)), host=local)
    ruleset = render_everything(snapshot).ruleset
    assert ruleset is not None
    assert ruleset.elements["ways"] == {TUNNEL, "eth0"}
    assert ruleset.elements["lanes"] == {
        f"{BRIDGE} . {TUNNEL} : accept",
        f"{TUNNEL} . {BRIDGE} : accept",
        f"{BRIDGE} . eth0 : jump to_way",
        f"eth0 . {BRIDGE} : jump from_way",
    }


def test_a_fixed_address_of_a_peer_is_a_host_route_to_it_and_an_own_one_leads_to_the_bridge() -> None:
    snapshot = two_hosts(an_overlay(), fixed=(a_claim("192.168.0.2", H2), a_claim("192.168.0.3", a_host(1).id)))
    routes = {str(route) for route in render_everything(snapshot).routes}
    assert f"192.168.0.2/32 via 192.168.2.0 dev {TUNNEL} src 192.168.1.0 onlink" in routes
    assert f"192.168.0.3/32 dev {BRIDGE}" in routes


def test_an_endpoint_is_one_veth_pair_with_its_address_route_and_port() -> None:
    endpoint = an_endpoint("192.168.1.7", publish=("4000:80", "127.0.0.1:53:53/udp"))
    state = render_endpoint(two_hosts(an_overlay(), endpoint), endpoint)
    assert str(diff(state, State(ruleset=Ruleset()))).splitlines() == [
        f"nft add element bridge/macs {{ naeeeeeeeeeeeee . {endpoint.mac} }}",
        f"nft add element bridge/sources4 {{ naeeeeeeeeeeeee . {endpoint.mac} . 192.168.1.7 }}",
        "nft add element hairpin4 { 192.168.1.7 . 192.168.1.7 }",
        "nft add element publish4 { tcp . 4000 : 192.168.1.7 . 80 }",
        "nft add element publish4_at { 127.0.0.1 . udp . 53 : 192.168.1.7 . 53 }",
        "link add naeeeeeeeeeeeee type veth mtu 1450",
        "address add 192.168.1.7/16 dev eth0 in /run/netns/web",
        "route replace 0.0.0.0/0 via 192.168.0.1 dev eth0 in /run/netns/web",
        "conntrack flush ipv4 *:4000/tcp not to 192.168.1.7:80",
        "conntrack flush ipv4 127.0.0.1:53/udp not to 192.168.1.7:53",
        f"announce 192.168.1.7 at {endpoint.mac} dev eth0 in /run/netns/web",
    ]


def test_taking_an_endpoint_down_deletes_its_link_and_then_its_elements() -> None:
    endpoint = an_endpoint("192.168.1.7", publish=("4000:80",))
    state = render_endpoint(two_hosts(an_overlay(), endpoint), endpoint)
    assert str(diff(State(ruleset=Ruleset()), state)).splitlines() == [
        "link delete naeeeeeeeeeeeee",
        f"nft delete element bridge/macs {{ naeeeeeeeeeeeee . {endpoint.mac} }}",
        f"nft delete element bridge/sources4 {{ naeeeeeeeeeeeee . {endpoint.mac} . 192.168.1.7 }}",
        "nft delete element hairpin4 { 192.168.1.7 . 192.168.1.7 }",
        "nft delete element publish4 { tcp . 4000 : 192.168.1.7 . 80 }",
        "conntrack flush to 192.168.1.7",
    ]


def test_an_ipv6_endpoint_reaches_everything_beyond_itself_through_the_gateway() -> None:
    network = a_local_network("fd00:1::/64")
    endpoint = an_endpoint("fd00:1::7", network=LOCALNET)
    snapshot = replace(
        two_hosts(network, endpoint), claims=Claims.of([a_block("fd00:1::/64", a_host(1).id, network=LOCALNET)])
    )
    routes = sorted(str(route) for route in render_endpoint(snapshot, endpoint).routes)
    assert routes == [
        "::/0 via fd00:1::1 dev eth0 onlink in /run/netns/web",
        "fd00:1:0:0:8000::/65 via fd00:1::1 dev eth0 onlink in /run/netns/web",
        "fd00:1::/65 via fd00:1::1 dev eth0 onlink in /run/netns/web",
    ]


def test_an_internal_network_has_no_default_route_and_is_not_masqueraded() -> None:
    endpoint = an_endpoint("192.168.1.7")
    state = render_everything(two_hosts(an_overlay(internal=True), endpoint))
    assert state.ruleset is not None
    assert not any(route.destination.prefixlen == 0 for route in state.routes)
    assert state.ruleset.elements["internal"] == {BRIDGE}
    assert "masquerade4" not in state.ruleset.elements


def test_the_narrowest_host_sets_the_mtu_of_all() -> None:
    snapshot = two_hosts(an_overlay())
    narrow = replace(snapshot, hosts=snapshot.hosts.updated([a_host(2, mtu=1400)]))
    assert render_everything(narrow).links[BRIDGE].mtu == 1350
    assert render_everything(narrow).links[TUNNEL].mtu == 1350


def test_a_host_without_a_block_here_or_an_address_has_no_say_in_the_mtu() -> None:
    snapshot = two_hosts(an_overlay())
    guest = replace(a_host(3, mtu=1300), underlay=())
    hosts = snapshot.hosts.updated([guest])
    assert network_mtu(an_overlay(), replace(snapshot, hosts=hosts)) == 1450
    claims = snapshot.claims.updated([a_block("192.168.3.0/24", H3)])
    assert network_mtu(an_overlay(), replace(snapshot, hosts=hosts, claims=claims)) == 1450, "nobody can reach it"
    both = snapshot.hosts.updated([a_host(3, mtu=1300), a_host(2, mtu=1400)])
    assert network_mtu(an_overlay(), replace(snapshot, hosts=both)) == 1350
    assert network_mtu(an_overlay(), replace(snapshot, hosts=both, claims=claims)) == 1250


def test_a_given_mtu_wins() -> None:
    assert render_everything(two_hosts(an_overlay(mtu=1280))).links[TUNNEL].mtu == 1280


def test_a_network_without_a_block_here_costs_nothing_here() -> None:
    snapshot = two_hosts(an_overlay())
    state = render_everything(replace(snapshot, claims=Claims.of([a_block("192.168.2.0/24", H2)])))
    assert not state.links
    assert not state.routes
    assert "ip_forward" not in str(state.sysctls)


def test_a_network_being_deleted_leaves_the_kernel_once_nothing_uses_it() -> None:
    network = replace(an_overlay(), state=NetworkState.DELETING)
    assert not render_everything(two_hosts(network)).links
    assert BRIDGE in render_everything(two_hosts(network, an_endpoint("192.168.1.7"))).links


@pytest.mark.parametrize("state", [EndpointState.DETACHING, EndpointState.DORMANT])
def test_an_endpoint_that_leaves_or_sleeps_is_not_in_the_kernel(state: EndpointState) -> None:
    everything = render_everything(two_hosts(an_overlay(), an_endpoint("192.168.1.7", state=state)))
    assert set(everything.links) == {BRIDGE, TUNNEL}


def test_a_block_of_a_host_nobody_knows_is_not_routed() -> None:
    snapshot = two_hosts(an_overlay())
    without = replace(snapshot, hosts=Hosts.of([a_host(1)]))
    assert not render_everything(without).routes
    assert STATICNET in without.networks


def test_a_switch_takes_from_a_peer_what_lies_behind_it_alone() -> None:
    """A claim of one peer in another one's block is nobody's, as in the firewall's sets."""
    network = replace(an_overlay(), driver="gre", backend="ovs")
    claims = (a_claim("192.168.0.9", H2), a_claim("192.168.2.9", H3, "f" * 64))
    world = two_hosts(network, fixed=claims)
    three = replace(
        world,
        hosts=world.hosts.updated([a_host(3)]),
        claims=world.claims.updated([a_block("192.168.3.0/24", H3)]),
    )
    device = "nao" + "a" * 12
    assert sorted(map(str, render_everything(three).tunnel_sources)) == [
        f"192.168.0.9/32 from 198.18.0.2 dev {device}",
        f"192.168.2.0/24 from 198.18.0.2 dev {device}",
        f"192.168.3.0/24 from 198.18.0.3 dev {device}",
    ]
    assert not render_everything(two_hosts(an_overlay(), fixed=claims)).tunnel_sources
