"""Claims by network and owner: the same that a look at all of them finds."""

from dataclasses import replace

from netagent.model.address import parse_prefix
from netagent.model.claims import NOTHING
from netagent.model.endpoint_index import Endpoints
from tests.support.world import H1, H2, H3, LOCALNET, STATICNET, a_block, a_claim, an_endpoint, an_overlay, two_hosts


def test_what_a_host_holds_is_in_the_order_of_its_blocks_and_of_its_network_alone() -> None:
    later, first = a_block("192.168.9.0/24", H2), a_block("192.168.2.0/24", H2)
    other = a_block("192.168.3.0/24", H2, network=LOCALNET)
    claim, alone = a_claim("192.168.0.3", H2), a_claim("192.168.0.4", H3)
    snapshot = replace(two_hosts(an_overlay(), fixed=(claim, alone)), blocks=(later, other, first))
    held = snapshot.claims_in(STATICNET).holdings
    assert (held[H2].blocks, held[H2].fixed) == ((first, later), (claim,))
    assert (held[H3].blocks, held[H3].fixed) == ((), (alone,))
    assert held.get(H1, NOTHING) is NOTHING
    assert snapshot.blocks_in(LOCALNET) == [other]


def test_a_block_is_found_by_its_prefix_and_by_no_other() -> None:
    claims = two_hosts(an_overlay()).claims_in(STATICNET)
    assert claims.block_at(parse_prefix("192.168.2.0/24")) == a_block("192.168.2.0/24", H2)
    assert claims.block_at(parse_prefix("192.168.2.0/25")) is None
    assert claims.block_at(parse_prefix("192.168.7.0/24")) is None


def test_a_copy_with_other_claims_answers_for_its_own() -> None:
    snapshot = two_hosts(an_overlay())
    assert len(snapshot.blocks_in(STATICNET)) == 2
    fewer = replace(snapshot, blocks=snapshot.blocks[:1])
    assert len(fewer.blocks_in(STATICNET)) == 1
    assert len(snapshot.with_endpoints(Endpoints.of([an_endpoint("192.168.1.7")])).blocks_in(STATICNET)) == 2
