"""Claims by network and owner: the same that a look at all of them finds."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from netagent.model.address import parse_address, parse_prefix
from netagent.model.claims import NOTHING, Claim, Claims
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import HostId, NetworkId
from tests.support.world import H1, H2, H3, LOCALNET, STATICNET, a_block, a_claim, an_endpoint, an_overlay, two_hosts


def test_what_a_host_holds_is_in_the_order_of_its_blocks_and_of_its_network_alone() -> None:
    later, first = a_block("192.168.9.0/24", H2), a_block("192.168.2.0/24", H2)
    other = a_block("192.168.3.0/24", H2, network=LOCALNET)
    claim, alone = a_claim("192.168.0.3", H2), a_claim("192.168.0.4", H3)
    snapshot = replace(two_hosts(an_overlay()), claims=Claims.of((later, other, first, claim, alone)))
    held = snapshot.claims_in(STATICNET).holdings
    assert (held[H2].blocks, held[H2].fixed) == ((first, later), (claim,))
    assert (held[H3].blocks, held[H3].fixed) == ((), (alone,))
    assert held.get(H1, NOTHING) is NOTHING
    assert tuple(snapshot.blocks_in(LOCALNET)) == (other,)


def test_a_block_is_found_by_its_prefix_and_by_no_other() -> None:
    claims = two_hosts(an_overlay()).claims_in(STATICNET)
    assert claims.block_at(parse_prefix("192.168.2.0/24")) == a_block("192.168.2.0/24", H2)
    assert claims.block_at(parse_prefix("192.168.2.0/25")) is None
    assert claims.block_at(parse_prefix("192.168.7.0/24")) is None


def test_a_claim_is_found_by_its_address_and_goes_with_it() -> None:
    claim = a_claim("192.168.0.7", H3)
    claims = two_hosts(an_overlay()).claims.updated([claim])
    assert claims.in_network(STATICNET).fixed_at(claim.address) is claim
    assert claims.in_network(STATICNET).fixed_at(parse_address("192.168.0.8")) is None
    assert [holding.fixed for holding in claims.held_by(H3)] == [(claim,)]
    assert list(claims.updated(gone=[claim]).held_by(H3)) == []


PLACES = [f"192.168.{number}.0/24" for number in range(1, 7)]
ADDRESSES = [f"192.168.0.{number}" for number in range(2, 6)]
CLAIMS = st.dictionaries(
    st.tuples(st.sampled_from((STATICNET, LOCALNET)), st.sampled_from(PLACES + ADDRESSES)),
    st.sampled_from((H1, H2, H3)),
)


def claims_of(owners: dict[tuple[NetworkId, str], HostId]) -> dict[tuple[NetworkId, str], Claim]:
    return {
        (network, place): a_block(place, owner, network=network)
        if "/" in place
        else replace(a_claim(place, owner), network_id=network)
        for (network, place), owner in owners.items()
    }


def held(claims: Claims) -> dict[object, object]:
    """Return all that may be asked of claims."""
    return {
        (network, host): (
            holding.blocks,
            set(holding.fixed),
            [claims.in_network(network).block_at(block.prefix) for block in holding.blocks],
            {claims.in_network(network).fixed_at(claim.address) for claim in holding.fixed},
        )
        for network in claims.networks
        for host, holding in claims.in_network(network).holdings.items()
    }


@given(CLAIMS, CLAIMS, st.sets(st.sampled_from(PLACES + ADDRESSES)))
def test_after_changes_claims_are_found_as_among_fresh_ones(
    first: dict[tuple[NetworkId, str], HostId], put: dict[tuple[NetworkId, str], HostId], gone: set[str]
) -> None:
    before, new = claims_of(first), claims_of(put)
    lost = [claim for place, claim in before.items() if place in new or place[1] in gone]
    left = {place: claim for place, claim in before.items() if claim not in lost} | new
    origin = Claims.of(before.values())
    after = origin.updated(new.values(), gone=lost)
    assert held(after) == held(Claims.of(left.values()))
    assert {*after.blocks, *after.fixed} == set(left.values())
    assert held(origin) == held(Claims.of(before.values())), "it never changes"
    for network in (STATICNET, LOCALNET):
        old_holdings, new_holdings = origin.in_network(network).holdings, after.in_network(network).holdings
        differ = {host for host in (H1, H2, H3) if old_holdings.get(host) != new_holdings.get(host)}
        assert new_holdings.changed_keys(old_holdings) == differ


@given(CLAIMS, CLAIMS)
def test_of_two_stores_claims_at_one_place_the_latters_count(
    first: dict[tuple[NetworkId, str], HostId], second: dict[tuple[NetworkId, str], HostId]
) -> None:
    joined = Claims.of(claims_of(first).values()).joined(Claims.of(claims_of(second).values()))
    assert held(joined) == held(Claims.of((claims_of(first) | claims_of(second)).values()))


def test_a_copy_with_other_claims_answers_for_its_own() -> None:
    snapshot = two_hosts(an_overlay())
    assert len(snapshot.blocks_in(STATICNET)) == 2
    fewer = replace(snapshot, claims=Claims.of(snapshot.blocks[:1]))
    assert len(fewer.blocks_in(STATICNET)) == 1
    assert len(snapshot.with_endpoints(Endpoints.of([an_endpoint("192.168.1.7")])).blocks_in(STATICNET)) == 2
