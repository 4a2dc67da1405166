"""VXLAN without flooding or learning: what one host must be told of another."""

from dataclasses import replace

import pytest

from netagent.drivers import driver_named
from netagent.drivers.driver import Local, Peer
from netagent.drivers.vxlan import VxlanDriver, vtep_mac
from netagent.errors import Bug, InvalidRequest
from netagent.model.address import parse_address
from netagent.model.network import Scope
from netagent.plan.desired import State, Vxlan
from tests.support.world import H1, H2, H3, a_block, a_claim, a_host, an_overlay

TUNNEL = "nav" + "a" * 12
LOCAL = Local(host=a_host(1), mtu=1450, own=(parse_address("192.168.1.0"),))
SIX = parse_address("fd00::2")


def peer(number: int, *, fixed: tuple[str, ...] = ()) -> Peer:
    host = a_host(number)
    return Peer(
        host=host,
        blocks=(a_block(f"192.168.{number}.0/24", host.id),),
        fixed=tuple(a_claim(address, host.id) for address in fixed),
    )


def lines(state: State) -> list[str]:
    return sorted(str(item) for items in (state.neighbours, state.fdb, state.routes) for item in items)


def test_a_peer_is_one_route_one_neighbour_and_one_forwarding_entry() -> None:
    mac = vtep_mac(H2, 4097)
    assert lines(VxlanDriver().render(an_overlay(), LOCAL, [peer(2)])) == sorted(
        [
            f"192.168.2.0/24 via 192.168.2.0 dev {TUNNEL} src 192.168.1.0 onlink",
            f"192.168.2.0 lladdr {mac} dev {TUNNEL}",
            f"{mac} dst 198.18.0.2 dev {TUNNEL}",
        ]
    )


def test_the_tables_grow_with_hosts_and_fixed_addresses_by_a_route_each() -> None:
    state = VxlanDriver().render(an_overlay(), LOCAL, [peer(2, fixed=("192.168.0.2", "192.168.0.3")), peer(3)])
    assert (len(state.neighbours), len(state.fdb), len(state.routes)) == (2, 2, 4)
    assert f"192.168.0.3/32 via 192.168.2.0 dev {TUNNEL} src 192.168.1.0 onlink" in lines(state)


def test_the_device_carries_number_underlay_mtu_and_owner() -> None:
    (link,) = VxlanDriver().render(an_overlay(), LOCAL, []).links.values()
    assert link.kind == Vxlan(vni=4097, local=parse_address("198.18.0.1"))
    assert (link.name, link.mtu, link.alias) == (TUNNEL, 1450, "netagent:" + "a" * 64)
    assert link.mac == vtep_mac(H1, 4097)


def test_vtep_macs_differ_by_host_and_network_and_last() -> None:
    assert len({vtep_mac(host, vni) for host in (H1, H2, H3) for vni in (1, 2)}) == 6
    assert vtep_mac(H1, 4097) == vtep_mac(H1, 4097)


@pytest.mark.parametrize("underlay", [(), (SIX,)], ids=["nowhere", "another family"])
def test_a_peer_that_cannot_be_reached_is_left_out_and_the_others_are_not(underlay: tuple[object, ...]) -> None:
    lost = replace(peer(2), host=replace(a_host(2), underlay=underlay))
    state = VxlanDriver().render(an_overlay(), LOCAL, [lost, peer(3)])
    assert lines(state) == lines(VxlanDriver().render(an_overlay(), LOCAL, [peer(3)]))


def test_a_peer_without_an_address_of_its_own_is_not_routed_to() -> None:
    bare = Peer(host=a_host(2), blocks=(a_block("192.168.2.0/24", H2, own=False),))
    assert not VxlanDriver().render(an_overlay(), LOCAL, [bare]).routes


def test_the_overhead_is_that_of_the_underlays_family() -> None:
    assert VxlanDriver().overhead(an_overlay()) == 50
    assert VxlanDriver().overhead(replace(an_overlay(), underlay=6)) == 70


def test_impossible_input_is_our_bug() -> None:
    with pytest.raises(Bug, match="has no VNI"):
        VxlanDriver().render(replace(an_overlay(), vni=None), LOCAL, [])


def test_a_host_without_an_underlay_address_of_the_networks_family_has_no_device() -> None:
    assert VxlanDriver().render(replace(an_overlay(), underlay=6), LOCAL, [peer(2)]) == State()


def test_drivers_are_found_by_name_and_others_refused_in_dockers_words() -> None:
    assert driver_named("vxlan").scope is Scope.GLOBAL
    bridge = driver_named("bridge")
    assert (
        bridge.scope,
        bridge.needs_number,
        bridge.overhead(an_overlay()),
        bridge.device(an_overlay(), a_host(1)),
    ) == (
        Scope.LOCAL,
        False,
        0,
        None,
    )
    with pytest.raises(InvalidRequest, match='plugin "overlay" not found') as caught:
        driver_named("overlay")
    assert caught.value.hint == "drivers are bridge, vxlan, route, gre"
