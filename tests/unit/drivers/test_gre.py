"""GRE in both forms: what the kernel is told, and what Open vSwitch."""

from dataclasses import replace

import pytest

from netagent.drivers import driver_named
from netagent.drivers.driver import Local, Peer
from netagent.drivers.gre import gre_mac
from netagent.errors import Bug
from netagent.model.address import parse_address
from netagent.model.host import Host
from netagent.model.network import Network
from netagent.plan.desired import Gretap, OvsGre, State
from tests.support.world import H2, a_block, a_claim, a_host, an_overlay

SWITCHED = "nao" + "a" * 12
SIX = parse_address("fd00::2")


def gre(**changes: object) -> Network:
    return replace(an_overlay(), driver="gre", **changes)  # type: ignore[arg-type]


def local(*features: str) -> Local:
    host = replace(a_host(1), features=frozenset(features))
    return Local(host=host, mtu=1458, own=(parse_address("192.168.1.0"),))


def peer(*, six: bool = False) -> Peer:
    host = replace(a_host(2), underlay=(SIX,)) if six else a_host(2)
    return Peer(host=host, blocks=(a_block("192.168.2.0/24", H2),), fixed=(a_claim("192.168.0.9", H2),))


def lines(state: State) -> list[str]:
    return sorted(str(item) for items in (state.neighbours, state.fdb, state.routes) for item in items)


def test_the_kernels_form_is_one_device_for_all_and_routes_that_say_key_and_peer() -> None:
    state = driver_named("gre").render(gre(), local("gre"), [peer()])
    (link,) = state.links.values()
    assert (link.name, link.kind, link.mtu) == ("nagre4", Gretap(version=4), 1458)
    encap = "encap ip id 4097 src 198.18.0.1 dst 198.18.0.2"
    assert lines(state) == [
        f"192.168.0.9/32 {encap} via 192.168.2.0 dev nagre4 src 192.168.1.0 onlink",
        f"192.168.2.0 lladdr {gre_mac(H2)} dev nagre4",
        f"192.168.2.0/24 {encap} via 192.168.2.0 dev nagre4 src 192.168.1.0 onlink",
    ]


def test_the_form_of_open_vswitch_is_a_device_a_network_and_a_forwarding_entry_a_peer() -> None:
    state = driver_named("gre").render(gre(), local(), [peer()])
    (link,) = state.links.values()
    assert (link.name, link.kind) == (SWITCHED, OvsGre(key=4097, local=parse_address("198.18.0.1")))
    assert lines(state) == sorted(
        [
            f"192.168.0.9/32 via 192.168.2.0 dev {SWITCHED} src 192.168.1.0 onlink",
            f"192.168.2.0 lladdr {gre_mac(H2)} dev {SWITCHED}",
            f"192.168.2.0/24 via 192.168.2.0 dev {SWITCHED} src 192.168.1.0 onlink",
            f"{gre_mac(H2)} dst 198.18.0.2 dev {SWITCHED}",
        ]
    )


@pytest.mark.parametrize(
    ("network", "host", "is_switched"),
    [
        (gre(), local("gre").host, False),
        (gre(), local("gre6").host, True),
        (gre(underlay=6), local("gre6").host, False),
        (gre(backend="ovs"), local("gre").host, True),
        (gre(backend="kernel"), local().host, False),
    ],
    ids=["the kernel has it", "not of this family", "of the other family", "ovs asked for", "kernel asked for"],
)
def test_the_form_is_as_asked_for_or_what_the_kernel_has(network: Network, host: Host, *, is_switched: bool) -> None:
    driver = driver_named("gre")
    assert driver.device(network, host) == (SWITCHED if is_switched else None)
    assert driver.ways(network, host) == (() if is_switched else (f"nagre{network.underlay}",))


def test_the_overhead_counts_key_and_inner_ethernet() -> None:
    assert [driver_named("gre").overhead(gre(underlay=version)) for version in (4, 6)] == [42, 62]


def test_a_peer_without_an_address_of_the_underlays_family_is_an_obstacle_and_left_out() -> None:
    driver = driver_named("gre")
    assert "IPv4" in str(driver.obstacle(gre(), a_host(1), peer(six=True).host))
    assert driver.obstacle(gre(), a_host(1), a_host(2)) is None
    assert not driver.render(gre(), local("gre"), [peer(six=True)]).routes
    assert driver.render(gre(underlay=6), local("gre6"), [peer(six=True)]) == State()


def test_a_network_without_a_key_is_our_bug() -> None:
    with pytest.raises(Bug, match="has no key"):
        driver_named("gre").render(gre(vni=None), local(), [])
