"""Plain routes: which peers get one, and what becomes of those that are behind a router."""

from dataclasses import replace

import pytest

from netagent.drivers import driver_named
from netagent.drivers.driver import Driver, Local, Peer
from netagent.model.address import parse_address, parse_prefix
from netagent.model.host import Host
from netagent.model.network import Network
from netagent.plan.desired import State
from tests.support.world import H2, H3, a_block, a_claim, a_host, a_subnet, an_overlay

LOCAL = Local(host=a_host(1), mtu=1500, own=(parse_address("192.168.1.0"),))
FAR = replace(a_host(3), underlay=(parse_address("198.19.0.3"),), on_link=(parse_prefix("198.19.0.0/24"),))


def near() -> Peer:
    return Peer(host=a_host(2), blocks=(a_block("192.168.2.0/24", H2),), fixed=(a_claim("192.168.0.9", H2),))


def far() -> Peer:
    return Peer(host=FAR, blocks=(a_block("192.168.3.0/24", H3),))


def routed(*, fallback: str | None = None) -> Network:
    return replace(an_overlay(), driver="route", fallback=fallback)


def direct() -> Network:
    return replace(an_overlay(), direct_routing=True)


def routes(state: State) -> list[str]:
    return sorted(map(str, state.routes))


def test_a_peer_on_the_segment_is_one_route_by_its_underlay_address() -> None:
    state = driver_named("route").render(routed(), LOCAL, [near(), far()])
    assert routes(state) == [
        "192.168.0.9/32 via 198.18.0.2 dev eth0 src 192.168.1.0",
        "192.168.2.0/24 via 198.18.0.2 dev eth0 src 192.168.1.0",
    ]
    assert not state.links
    assert driver_named("route").overhead(routed()) == 0


@pytest.mark.parametrize("network", [routed(fallback="vxlan"), direct()], ids=["fallback", "direct-routing"])
def test_a_network_of_both_ways_has_plain_routes_to_near_peers_and_a_tunnel_for_the_others(network: Network) -> None:
    driver = driver_named(network.driver)
    state = driver.render(network, LOCAL, [near(), far()])
    assert routes(state) == [
        "192.168.0.9/32 via 198.18.0.2 dev eth0 src 192.168.1.0",
        "192.168.2.0/24 via 198.18.0.2 dev eth0 src 192.168.1.0",
        "192.168.3.0/24 via 192.168.3.0 dev navaaaaaaaaaaaa src 192.168.1.0 onlink",
    ]
    assert {str(entry.destination) for entry in state.fdb} == {"198.18.0.2", "198.19.0.3"}
    assert driver.overhead(network) == 50
    assert driver.ways(network, a_host(1)) == ("navaaaaaaaaaaaa", "eth0")


def test_only_a_peer_without_any_way_is_an_obstacle() -> None:
    route = driver_named("route")
    assert route.obstacle(routed(), a_host(1), a_host(2)) is None
    assert "not on one segment" in str(route.obstacle(routed(), a_host(1), FAR))
    assert route.obstacle(routed(fallback="vxlan"), a_host(1), FAR) is None


@pytest.mark.parametrize(
    "stranger",
    [
        replace(a_host(2), on_link=()),
        replace(a_host(2), underlay=()),
        replace(a_host(2), on_link=(parse_prefix("198.18.0.2/32"),)),
    ],
    ids=["that does not say", "without an address", "that sees only itself"],
)
def test_both_hosts_must_see_the_segment(stranger: Host) -> None:
    driver: Driver = driver_named("route")
    assert driver.obstacle(routed(), a_host(1), stranger) is not None
    assert driver.obstacle(routed(), stranger, a_host(1)) is not None


def test_a_network_of_both_families_needs_both_on_the_segment() -> None:
    both = replace(routed(), subnets=(*routed().subnets, a_subnet("fd00:77::/64", block_length=80)))
    assert driver_named("route").obstacle(both, a_host(1), a_host(2)) is not None
