from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import Conflict, Exhausted, InvalidRequest
from netagent.ipam.allocate import choose_address, choose_block, needs_claim, own_address
from netagent.model.address import parse_address, parse_prefix
from tests.support.world import (
    H1,
    H2,
    LOCALNET,
    a_block,
    a_claim,
    a_local_network,
    a_subnet,
    an_endpoint,
    an_overlay,
    two_hosts,
)


def test_the_block_with_the_gateway_is_never_leased() -> None:
    assert str(choose_block(a_subnet("192.168.0.0/16", block_length=24), [], [])) == "192.168.1.0/24"


def test_a_gateway_elsewhere_reserves_its_own_block() -> None:
    subnet = a_subnet("192.168.0.0/16", block_length=24, gateway="192.168.1.9")
    assert str(choose_block(subnet, [], [])) == "192.168.0.0/24"


def test_claimed_blocks_and_those_with_a_fixed_address_are_passed_over() -> None:
    subnet = a_subnet("192.168.0.0/16", block_length=24)
    claimed = [parse_prefix("192.168.1.0/24"), parse_prefix("192.168.3.0/24")]
    assert str(choose_block(subnet, claimed, [parse_address("192.168.2.77")])) == "192.168.4.0/24"


def test_a_subnet_whose_blocks_are_all_held_says_so() -> None:
    subnet = a_subnet("10.0.0.0/30", block_length=31)
    with pytest.raises(Exhausted, match="no free block"):
        choose_block(subnet, [parse_prefix("10.0.0.2/31")], [])


def test_a_host_has_the_first_address_of_its_block_and_none_where_the_gateway_serves() -> None:
    block = parse_prefix("192.168.3.0/24")
    assert str(own_address(a_subnet("192.168.0.0/16", block_length=24), block)) == "192.168.3.0"
    assert own_address(a_subnet("172.16.0.0/24"), parse_prefix("172.16.0.0/24")) is None


def test_addresses_are_handed_out_in_turn_and_not_the_lowest_free() -> None:
    blocks = [a_block("192.168.1.0/24", H1)]
    last = parse_address("192.168.1.9")
    assert str(choose_address(an_overlay(), blocks, {last}, last)) == "192.168.1.10"
    assert str(choose_address(an_overlay(), blocks, set(), last)) == "192.168.1.10"


def test_hand_out_comes_round_at_the_end_of_the_block() -> None:
    blocks = [a_block("192.168.1.0/24", H1)]
    assert str(choose_address(an_overlay(), blocks, set(), parse_address("192.168.1.255"))) == "192.168.1.1"


def test_a_local_network_gives_neither_network_nor_gateway_nor_broadcast_address() -> None:
    network = a_local_network("10.0.0.0/29")
    blocks = [a_block("10.0.0.0/29", H1, network=LOCALNET, own=False)]
    used: set[object] = set()
    last = None
    for _ in range(5):
        last = choose_address(network, blocks, used, last)  # type: ignore[arg-type]
        used.add(last)
    assert sorted(str(a) for a in used) == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(Exhausted, match="no available addresses on this pool: network app"):
        choose_address(network, blocks, used, last)  # type: ignore[arg-type]


@given(st.sets(st.integers(0, 15)), st.one_of(st.none(), st.integers(0, 15)))
def test_an_address_is_found_whenever_one_is_free_and_never_a_used_one(used: set[int], last: int | None) -> None:
    block = a_block("192.168.1.0/28", H1)
    network = replace(an_overlay(), subnets=(a_subnet("192.168.0.0/16", block_length=28),))
    taken = {block.prefix[index] for index in used}
    free = set(block.prefix) - taken - {block.own_address}
    try:
        chosen = choose_address(network, [block], taken, None if last is None else block.prefix[last])
    except Exhausted:
        assert not free
    else:
        assert chosen in free


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("10.9.9.9", InvalidRequest, "no configured subnet contains IP address 10.9.9.9"),
        ("192.168.0.0", InvalidRequest, "requested address is out of range"),
        ("192.168.255.255", InvalidRequest, "requested address is out of range"),
        ("192.168.0.1", Conflict, "is the gateway of network staticnet"),
        ("192.168.1.7", Conflict, "Address already in use: 192.168.1.7"),
        ("192.168.1.0", Conflict, "is this host's own"),
        ("192.168.2.5", Conflict, "lies in block 192.168.2.0/24 of host h2"),
        ("192.168.0.2", Conflict, "Address already in use: 192.168.0.2 in network staticnet on host h2"),
    ],
)
def test_fixed_addresses_that_cannot_be_had_are_refused_by_name(address: str, error: type, message: str) -> None:
    snapshot = two_hosts(an_overlay(), an_endpoint("192.168.1.7"), fixed=(a_claim("192.168.0.2", H2),))
    with pytest.raises(error, match=message):
        needs_claim(snapshot, an_overlay(), parse_address(address))


def test_how_a_fixed_address_of_a_dead_host_is_had_is_said_where_the_host_is_dead() -> None:
    alive = two_hosts(an_overlay(), fixed=(a_claim("192.168.0.2", H2),))
    for snapshot, is_told in ((replace(alive, live=frozenset({H2})), False), (replace(alive, live=frozenset()), True)):
        with pytest.raises(Conflict) as caught:
            needs_claim(snapshot, an_overlay(), parse_address("192.168.0.2"))
        assert ("netagent host rm h2" in caught.value.hint) is is_told


@pytest.mark.parametrize(("address", "claim"), [("192.168.0.9", True), ("192.168.7.7", True), ("192.168.1.8", False)])
def test_a_fixed_address_is_claimed_outside_own_blocks_and_decided_locally_inside(address: str, claim: bool) -> None:
    snapshot = two_hosts(an_overlay(), an_endpoint("192.168.1.7"))
    assert needs_claim(snapshot, an_overlay(), parse_address(address)) is claim


def test_an_address_that_rests_is_given_only_if_there_is_no_other_and_then_the_one_that_rested_longest() -> None:
    network = a_local_network("10.0.0.0/29")
    blocks = [a_block("10.0.0.0/29", H1, network=LOCALNET, own=False)]
    resting = {parse_address("10.0.0.2"): 5.0, parse_address("10.0.0.3"): 4.0, parse_address("10.9.9.9"): 1.0}
    used = {parse_address(f"10.0.0.{n}") for n in (4, 5)}
    assert str(choose_address(network, blocks, used, None, resting)) == "10.0.0.6"
    used.add(parse_address("10.0.0.6"))
    assert str(choose_address(network, blocks, used, None, resting)) == "10.0.0.3"
    used.add(parse_address("10.0.0.3"))
    assert str(choose_address(network, blocks, used, None, resting)) == "10.0.0.2"
    used.add(parse_address("10.0.0.2"))
    with pytest.raises(Exhausted):
        choose_address(network, blocks, used, None, resting)
