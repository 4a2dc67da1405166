"""Records made by an enemy: whatever they say, the view goes on, and says nothing that no network declares."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netagent.model.address import is_inside
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import NetworkId
from netagent.plan.peers import peers_of
from netagent.plan.render import render_everything
from netagent.reconcile.ports import StoreEntry
from netagent.store import keys
from netagent.store.network_records import encode_network
from netagent.store.record_format import InvalidRecord
from netagent.store.records import decode_host, encode_block, encode_fixed, encode_host
from netagent.store.view import ClusterView, join_snapshot
from tests.support.world import H1, H2, H3, STATICNET, a_block, a_claim, a_host, an_endpoint, an_overlay

OWN, THEIRS = a_block("192.168.1.0/24", H1), a_block("192.168.2.0/24", H2)
OWN_KEY = keys.block_key(STATICNET, OWN.prefix)
CLAIM = a_claim("192.168.7.2", H1)
CLAIM_KEY = keys.address_key(STATICNET, a_block("192.168.7.0/24", H1).prefix, CLAIM.address)
GOOD: dict[str, bytes] = {
    keys.network_key("staticnet"): encode_network(an_overlay()),
    keys.number_key(4097): STATICNET.encode(),
    keys.host_key(H1): encode_host(a_host(1)),
    keys.host_key(H2): encode_host(a_host(2)),
    OWN_KEY: encode_block(OWN),
    keys.block_key(STATICNET, THEIRS.prefix): encode_block(THEIRS),
    CLAIM_KEY: encode_fixed(CLAIM),
}
ENDPOINT = an_endpoint("192.168.1.2", "192.168.7.2")

WORDS = st.sampled_from(
    (
        *("", "192.168.1.0/24", "10.0.0.0/8", "0.0.0.0/0", "127.0.0.1", "224.0.0.1", "::1", "fe80::1", "198.18.0.1"),
        *(H1, H2, H3, STATICNET, "vxlan", "global", "nab0", "a" * 5000, "\0", "\ud7ff"),
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def a_view(records: dict[str, bytes]) -> ClusterView:
    view = ClusterView(H1, lambda: Endpoints.of([ENDPOINT]))
    change(view, {}, records)
    return view


def change(view: ClusterView, before: dict[str, bytes], records: dict[str, bytes]) -> None:
    changed = [key for key in before | records if before.get(key) != records.get(key)]
    view.update(changed, {key: StoreEntry(key=key, value=value, revision=1) for key, value in records.items()})


def check(view: ClusterView) -> None:
    """What the view says renders, and lies where its network says."""
    snapshot = join_snapshot([view], a_host(1), complete=True).with_endpoints(Endpoints.of([ENDPOINT]))
    for block in snapshot.blocks:
        assert any(is_inside(block.prefix, s.prefix) for s in snapshot.networks[block.network_id].subnets)
    for claim in snapshot.fixed:
        assert any(claim.address in s.prefix for s in snapshot.networks[claim.network_id].subnets)
    subnets = [subnet.prefix for network in snapshot.networks.values() for subnet in network.subnets]
    for route in render_everything(snapshot).routes:
        if not route.where:
            assert any(is_inside(route.destination, prefix) for prefix in subnets), route
    for peer in (peer for network in snapshot.networks.values() for peer in peers_of(snapshot, network)):
        for address in peer.host.underlay:
            assert address not in a_host(1).underlay
            assert not any((address.is_loopback, address.is_multicast, address.is_unspecified))


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from(sorted(GOOD)), value=VALUES)
def test_any_json_under_any_key_costs_itself_alone(key: str, value: Any) -> None:
    view = a_view(GOOD)
    change(view, GOOD, {**GOOD, key: json.dumps(value).encode()})
    check(view)


@settings(max_examples=250, deadline=None)
@given(data=st.data(), key=st.sampled_from(sorted(GOOD.keys() - {keys.number_key(4097)})))
def test_any_field_may_hold_anything(data: st.DataObject, key: str) -> None:
    record = json.loads(GOOD[key])
    field = data.draw(st.sampled_from(sorted(record)))
    record[field] = data.draw(VALUES | WORDS.map(lambda word: [word]))
    view = a_view(GOOD)
    change(view, GOOD, {**GOOD, key: json.dumps(record).encode()})
    check(view)
    check(a_view({**GOOD, key: json.dumps(record).encode()}))


@settings(max_examples=50, deadline=None)
@given(value=st.binary(max_size=200), key=st.sampled_from(sorted(GOOD)))
def test_bytes_that_are_no_json_cost_themselves_alone(value: bytes, key: str) -> None:
    view = a_view(GOOD)
    change(view, GOOD, {**GOOD, key: value})
    check(view)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "224.0.0.5", "ff02::1", "0.0.0.0", "::", "fe80::2", "255.255.255.255"]
)
def test_a_host_cannot_say_that_it_is_reached_where_no_host_is(address: str) -> None:
    record = json.loads(encode_host(a_host(2)))
    with pytest.raises(InvalidRecord, match=r"reach|broadcast"):
        decode_host(json.dumps({**record, "underlay": [address]}).encode())


def test_a_host_with_our_own_underlay_address_is_nobodys_way() -> None:
    stolen = {**json.loads(encode_host(a_host(2))), "underlay": ["198.18.0.1"]}
    view = a_view({**GOOD, keys.host_key(H2): json.dumps(stolen).encode()})
    check(view)
    snapshot = join_snapshot([view], a_host(1), complete=True)
    assert not peers_of(snapshot, an_overlay())


@pytest.mark.parametrize("key", [OWN_KEY, CLAIM_KEY])
def test_a_number_that_no_answer_could_say_is_refused(key: str) -> None:
    view = a_view({**GOOD, key: json.dumps({**json.loads(GOOD[key]), "epoch": 10**23}).encode()})
    assert "epoch" in view.refused[key]


@pytest.mark.parametrize("prefix", ["192.168.0.0/24", "192.168.2.0/25", "192.168.0.0/16", "10.0.0.0/24", "0.0.0.0/0"])
def test_a_block_out_of_place_is_named(prefix: str) -> None:
    wrong = a_block(prefix, H2)
    key = keys.block_key(STATICNET, wrong.prefix)
    view = a_view({**GOOD, key: encode_block(wrong)})
    assert view.misplaced == {key: "network staticnet has no block there"}
    assert wrong not in view.claims.blocks
    change(view, {**GOOD, key: encode_block(wrong)}, GOOD)
    assert not view.misplaced


def test_a_fixed_address_out_of_place_is_named() -> None:
    outside = a_claim("10.0.0.7", H2)
    key = keys.address_key(STATICNET, a_block("10.0.0.0/24", H2).prefix, outside.address)
    assert a_view({**GOOD, key: encode_fixed(outside)}).misplaced == {
        key: "network staticnet has no fixed address there"
    }


def test_a_network_does_not_take_another_ones_number() -> None:
    thief = {**json.loads(encode_network(an_overlay())), "id": "d" * 64, "name": "alpha"}
    key = keys.network_key("alpha")
    view = a_view({**GOOD, key: json.dumps(thief).encode()})
    assert set(view.networks) == {STATICNET}
    assert "belongs to another network" in view.refused[key]
    assert NetworkId("d" * 64) not in view.networks


@pytest.mark.parametrize("key", [OWN_KEY, CLAIM_KEY])
def test_a_claim_of_ours_that_another_host_overwrites_is_noticed_until_it_is_ours_again(key: str) -> None:
    view = a_view(GOOD)
    assert not view.seized
    overwritten = {**GOOD, key: json.dumps({**json.loads(GOOD[key]), "owner": H2}).encode()}
    change(view, GOOD, overwritten)
    change(view, {}, overwritten)
    assert view.seized == {key: H2}
    change(view, overwritten, GOOD)
    assert not view.seized


@pytest.mark.parametrize("key", [OWN_KEY, CLAIM_KEY])
def test_a_claim_that_an_operator_took_is_no_seizure(key: str) -> None:
    view = a_view(GOOD)
    change(view, GOOD, {**GOOD, key: json.dumps({**json.loads(GOOD[key]), "owner": H2, "epoch": 2}).encode()})
    assert not view.seized
