"""What stores say is other people's input: a bad record costs itself, and absence is not deletion."""

from collections.abc import Iterable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netagent.model.block import Block, FixedAddress
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import EndpointId, HostId
from netagent.model.network import Network, NetworkState, Scope
from netagent.model.snapshot import Snapshot
from netagent.reconcile.ports import StoreEntry
from netagent.store import keys
from netagent.store.endpoint_records import encode_endpoint
from netagent.store.network_records import encode_network
from netagent.store.record_format import SIZE_LIMIT
from netagent.store.records import encode_block, encode_fixed, encode_host
from netagent.store.view import ClusterView, join_snapshot
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
    a_subnet,
    an_endpoint,
    an_overlay,
)

NETWORK = keys.network_key("staticnet")


def block_key(block: Block) -> str:
    return keys.block_key(block.network_id, block.prefix)


def claim_key(claim: FixedAddress, network: Network | None = None) -> str:
    subnet = (network or an_overlay()).subnets[0]
    block = type(subnet.prefix)((int(claim.address), subnet.block_length), strict=False)
    return keys.address_key(claim.network_id, block, claim.address)


OWN, THEIRS = a_block("192.168.1.0/24", H1), a_block("192.168.2.0/24", H2)
CLAIM, THEIR_CLAIM = a_claim("192.168.0.2", H1), a_claim("192.168.0.3", H2, endpoint="f" * 64)
GOOD: dict[str, bytes] = {
    NETWORK: encode_network(an_overlay()),
    keys.host_key(H1): encode_host(a_host(1)),
    keys.host_key(H2): encode_host(a_host(2)),
    keys.live_key(H2): b"{}",
    block_key(OWN): encode_block(OWN),
    block_key(THEIRS): encode_block(THEIRS),
    claim_key(CLAIM): encode_fixed(CLAIM),
    claim_key(THEIR_CLAIM): encode_fixed(THEIR_CLAIM),
    keys.endpoint_key(H2, STATICNET, EndpointId("f" * 64)): encode_endpoint(an_endpoint("192.168.2.7", digit="f")),
    keys.GENERATION: b"1",
    keys.number_key(4097): STATICNET.encode(),
}


class Store:
    """Entries and the view of them that h1 has."""

    def __init__(self, entries: dict[str, bytes], *endpoints: Endpoint) -> None:
        self.entries: dict[str, StoreEntry] = {}
        self.endpoints = {endpoint.id: endpoint for endpoint in endpoints}
        self.view = ClusterView(H1, lambda: Endpoints.of(self.endpoints.values()))
        self.change(entries)

    def change(self, entries: dict[str, bytes | None] | dict[str, bytes]) -> None:
        for key, value in entries.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = StoreEntry(key=key, value=value, revision=1)
        self.view.update(entries, self.entries)

    def wipe(self) -> None:
        self.change(dict.fromkeys(self.entries))

    @property
    def snapshot(self) -> Snapshot:
        return join_snapshot([self.view], a_host(1), complete=True)


@pytest.fixture
def store() -> Store:
    """All good records, and an endpoint of ours with a fixed address."""
    return Store(GOOD, an_endpoint("192.168.0.2", fixed=True))


def test_good_records_become_a_snapshot(store: Store) -> None:
    snapshot = store.snapshot
    assert snapshot.networks == {STATICNET: an_overlay()}
    assert snapshot.hosts == {H1: a_host(1), H2: a_host(2)}
    assert snapshot.live == {H2}
    assert set(snapshot.blocks) == {OWN, THEIRS}
    assert set(snapshot.fixed) == {CLAIM, THEIR_CLAIM}
    assert [e.container_name for e in store.view.remote_endpoints[H2]] == ["web"]
    assert store.view.refused == {}


def test_this_hosts_own_endpoints_come_from_the_journal_and_not_from_the_store(store: Store) -> None:
    store.change({keys.endpoint_key(H1, STATICNET, EndpointId("e" * 64)): b"nonsense"})
    assert H1 not in store.view.remote_endpoints
    assert store.view.refused == {}


DEEP = b'{"v":1,"x":' + b"[" * 50_000
BAD_BYTES = {
    "no JSON": b"{",
    "nothing": b"",
    "not text": b"\xff\xfe",
    "another version": b'{"v":99}',
    "an unknown feature": b'{"v":1,"requires":["teleport"]}',
    "a giant": b'{"v":1,"x":"' + b"x" * SIZE_LIMIT + b'"}',
    "too deep": DEEP,
    "another record": GOOD[keys.host_key(H2)][:-1] + b',"prefix":7}',
}
KEYS_OF_OTHERS = [
    keys.network_key("later"),
    keys.host_key(H3),
    keys.block_key(STATICNET, a_subnet("192.168.3.0/24").prefix),
    keys.address_key(STATICNET, a_subnet("192.168.3.0/24").prefix, a_claim("192.168.3.9", H3).address),
    keys.endpoint_key(H3, STATICNET, EndpointId("9" * 64)),
]


@pytest.mark.parametrize("value", BAD_BYTES.values(), ids=BAD_BYTES)
@pytest.mark.parametrize("key", KEYS_OF_OTHERS, ids=lambda key: key.split("/")[3])
def test_a_bad_record_is_set_aside_with_its_reason_and_the_others_work(store: Store, key: str, value: bytes) -> None:
    before = store.snapshot
    store.change({key: value})
    assert store.snapshot == before
    assert set(store.view.refused) == {key}
    assert store.view.refused[key]
    store.change({key: None})
    assert store.view.refused == {}


MISPLACED = {
    "a network under another name": {keys.network_key("other"): GOOD[NETWORK]},
    "a host under another id": {keys.host_key(H3): GOOD[keys.host_key(H2)]},
    "a block under another prefix": {
        keys.block_key(STATICNET, a_subnet("192.168.7.0/24").prefix): encode_block(THEIRS),
    },
    "a block in another network": {keys.block_key(LOCALNET, THEIRS.prefix): encode_block(THEIRS)},
}


@pytest.mark.parametrize("records", MISPLACED.values(), ids=MISPLACED)
def test_a_record_under_a_wrong_key_is_refused(store: Store, records: dict[str, bytes]) -> None:
    before = store.snapshot
    store.change(records)
    assert store.snapshot == before
    assert set(store.view.refused) == set(records)


@pytest.mark.parametrize(
    "prefix",
    ["10.0.0.0/24", "0.0.0.0/0", "192.168.3.0/25", "192.168.0.0/16", "192.168.0.0/24", "fd00::/64"],
    ids=["outside", "everything", "too small", "whole", "the gateway's", "another family"],
)
def test_a_block_that_is_none_of_its_network_routes_nothing(store: Store, prefix: str) -> None:
    before = store.snapshot
    block = a_block(prefix, H2)
    store.change({block_key(block): encode_block(block)})
    assert store.snapshot == before


def test_a_block_of_an_unknown_network_waits_for_it() -> None:
    store = Store({block_key(THEIRS): GOOD[block_key(THEIRS)]})
    assert store.snapshot.blocks == ()
    store.change({NETWORK: GOOD[NETWORK]})
    assert store.snapshot.blocks == (THEIRS,)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.0.0.9", "/192.168.0.0-24/10.0.0.9"),
        ("192.168.0.9", "/192.168.7.0-24/192.168.0.9"),
        ("192.168.0.9", "/192.168.0.0-24/192.168.0.10"),
    ],
    ids=["outside", "under another block", "under another address"],
)
def test_a_fixed_address_under_a_wrong_key_claims_nothing(store: Store, address: str, key: str) -> None:
    before = store.snapshot
    store.change({f"{keys.ADDRESSES}{STATICNET}{key}": encode_fixed(a_claim(address, H2))})
    assert store.snapshot == before


def test_a_changed_record_takes_the_place_of_the_old(store: Store) -> None:
    store.change({keys.host_key(H2): encode_host(a_host(2, mtu=9000)), keys.live_key(H2): None})
    assert store.snapshot.hosts[H2].mtu == 9000
    assert store.snapshot.live == frozenset()


def test_unknown_keys_change_nothing(store: Store) -> None:
    before = store.snapshot
    store.change({keys.ROOT + "later/thing": b"\xff", keys.GENERATION: b"\xff"})
    assert store.snapshot == before
    assert store.view.refused == {}


# Absence is not deletion


def test_a_wiped_store_keeps_what_is_in_use_and_the_way_to_peers(store: Store) -> None:
    before = store.snapshot
    store.wipe()
    after = store.snapshot
    assert after.networks == before.networks
    assert set(after.blocks) == set(before.blocks)
    assert after.hosts == before.hosts
    assert set(after.fixed) == set(before.fixed)
    assert after.live == frozenset()
    assert NETWORK in store.view.orphaned


def test_a_wiped_store_keeps_nothing_of_networks_without_endpoints_here() -> None:
    store = Store(GOOD)
    store.wipe()
    snapshot = store.snapshot
    assert (snapshot.networks, snapshot.blocks, snapshot.fixed, snapshot.hosts) == ({}, (), (), {})
    assert not store.view.orphaned


def test_wiping_key_by_key_keeps_the_network_and_this_hosts_part(store: Store) -> None:
    for key in sorted(GOOD):
        store.change({key: None})
    assert store.snapshot.networks == {STATICNET: an_overlay()}
    assert OWN in store.snapshot.blocks
    assert CLAIM in store.snapshot.fixed


def test_a_peers_block_is_released_by_its_absence_while_the_network_is_there(store: Store) -> None:
    store.change({block_key(THEIRS): None})
    assert store.snapshot.blocks == (OWN,)


def test_this_hosts_block_is_not_released_by_somebody_else(store: Store) -> None:
    store.change({block_key(OWN): None})
    assert OWN in store.snapshot.blocks


def test_a_network_that_said_deleting_goes(store: Store) -> None:
    store.change({NETWORK: encode_network(replace(an_overlay(), state=NetworkState.DELETING))})
    store.wipe()
    assert store.snapshot.networks == {}
    assert store.snapshot.blocks == ()


@pytest.mark.parametrize("value", [v for n, v in BAD_BYTES.items() if n != "a giant"], ids=lambda v: str(v[:12]))
def test_a_network_in_use_stays_as_it_was_when_its_record_turns_bad(store: Store, value: bytes) -> None:
    store.change({NETWORK: value, block_key(OWN): value})
    assert store.snapshot.networks == {STATICNET: an_overlay()}
    assert set(store.snapshot.blocks) == {OWN, THEIRS}
    assert set(store.view.refused) == {NETWORK, block_key(OWN)}
    store.change({NETWORK: GOOD[NETWORK], block_key(OWN): GOOD[block_key(OWN)]})
    assert (store.view.refused, store.view.orphaned) == ({}, set())


def test_a_network_not_in_use_goes_when_its_record_turns_bad() -> None:
    store = Store(GOOD)
    store.change({NETWORK: b"{"})
    assert store.snapshot.networks == {}


def test_what_is_kept_is_known_as_the_store_had_it(store: Store) -> None:
    before = dict(GOOD)
    store.change({block_key(OWN): b"{"})
    before[block_key(THEIRS)] = encode_block(THEIRS)[:-1] + b',"later":1}'
    store.change({block_key(THEIRS): before[block_key(THEIRS)]})
    store.wipe()
    assert store.view.orphans == {key: before[key] for key in store.view.orphaned}
    assert {NETWORK, block_key(OWN), block_key(THEIRS), claim_key(THEIR_CLAIM), keys.host_key(H2)} <= set(
        store.view.orphans
    )
    store.endpoints.clear()
    store.view.drop_orphans()
    assert store.view.orphans == {}


def test_a_record_that_was_refused_for_its_number_is_not_the_one_that_is_kept(store: Store) -> None:
    stolen = encode_network(replace(an_overlay(), vni=4098))
    store.change({keys.number_key(4098): b"f" * 64, NETWORK: stolen})
    assert store.view.orphans[NETWORK] == GOOD[NETWORK]


def test_records_that_come_back_are_no_orphans_any_more(store: Store) -> None:
    store.wipe()
    store.change(GOOD)
    assert not store.view.orphaned
    assert not store.view.drop_orphans()
    assert set(store.snapshot.blocks) == {OWN, THEIRS}


def test_orphans_are_dropped_when_the_last_endpoint_goes(store: Store) -> None:
    store.wipe()
    assert not store.view.drop_orphans()
    store.endpoints.clear()
    assert store.view.drop_orphans()
    assert store.snapshot.networks == {}
    assert store.snapshot.hosts == {}
    assert not store.view.orphaned
    assert not store.view.drop_orphans()


def test_a_sleeping_endpoint_keeps_its_fixed_address_in_a_wiped_store() -> None:
    store = Store(GOOD, an_endpoint("192.168.0.2", fixed=True, state=EndpointState.DORMANT))
    store.wipe()
    assert CLAIM in store.snapshot.fixed


KEPT = {NETWORK: GOOD[NETWORK], block_key(OWN): GOOD[block_key(OWN)]}


def test_what_the_journal_kept_stands_in_for_a_store_that_knows_nothing() -> None:
    store = Store({}, an_endpoint("192.168.1.7"))
    store.view.adopt(KEPT, Scope.GLOBAL)
    assert store.snapshot.networks == {STATICNET: an_overlay()}
    assert store.snapshot.blocks == (OWN,)
    assert store.view.orphaned == set(KEPT)


def test_what_the_journal_kept_of_unused_networks_and_of_another_stores_is_not_taken() -> None:
    store = Store({})
    store.view.adopt(KEPT, Scope.GLOBAL)
    assert store.snapshot.networks == {}
    store = Store({}, an_endpoint("192.168.1.7"))
    store.view.adopt(KEPT, Scope.LOCAL)
    assert store.snapshot.networks == {}
    assert store.snapshot.blocks == ()


def test_what_the_store_says_goes_before_what_the_journal_kept() -> None:
    newer = replace(an_overlay(), internal=True)
    store = Store({**GOOD, NETWORK: encode_network(newer)}, an_endpoint("192.168.1.7"))
    store.view.adopt(KEPT, Scope.GLOBAL)
    assert store.snapshot.networks == {STATICNET: newer}
    assert not store.view.orphaned


def test_what_the_journal_kept_stands_in_for_a_record_that_cannot_be_used() -> None:
    store = Store({**GOOD, NETWORK: b'{"v":99}'}, an_endpoint("192.168.1.7"))
    assert store.snapshot.networks == {}
    store.view.adopt({**KEPT, keys.host_key(H3): b"nonsense"}, Scope.GLOBAL)
    assert store.snapshot.networks == {STATICNET: an_overlay()}
    assert NETWORK in store.view.refused


def test_two_stores_make_one_snapshot() -> None:
    local = Store({keys.network_key("app"): encode_network(a_local_network())})
    both: Iterable[ClusterView] = (local.view, Store(GOOD).view)
    snapshot = join_snapshot(both, a_host(1), complete=False)
    assert {network.name for network in snapshot.networks.values()} == {"app", "staticnet"}
    assert not snapshot.complete


def test_a_networks_unknown_keys_do_not_disturb(store: Store) -> None:
    later = msgspec.json.encode({**msgspec.json.decode(GOOD[NETWORK]), "colour": "red"})
    store.change({NETWORK: later})
    assert store.snapshot.networks == {STATICNET: an_overlay()}


def _changes() -> st.SearchStrategy[list[tuple[str, bytes | None]]]:
    elsewhere = a_block("10.9.9.0/24", H2)
    records = {
        **GOOD,
        block_key(elsewhere): encode_block(elsewhere),
        keys.address_key(STATICNET, OWN.prefix, CLAIM.address): encode_fixed(CLAIM),
    }
    smaller = replace(an_overlay(), subnets=(a_subnet("192.168.0.0/23", block_length=24),))
    values = {
        NETWORK: [GOOD[NETWORK], encode_network(smaller), b"nonsense", None],
        block_key(THEIRS): [encode_block(THEIRS), encode_block(replace(THEIRS, owner=H3)), b"{", None],
    }
    return st.lists(
        st.sampled_from(sorted(records.keys() - {keys.number_key(4097)})).flatmap(
            lambda key: st.tuples(st.just(key), st.sampled_from(values.get(key, [records[key], b"nonsense", None])))
        ),
        max_size=20,
    )


@settings(max_examples=60)
@given(_changes(), st.sets(st.integers(0, 19)))
def test_what_is_remembered_between_changes_is_what_a_fresh_look_finds(
    changes: list[tuple[str, bytes | None]], looks: set[int]
) -> None:
    store = Store(GOOD)
    for number, (key, value) in enumerate(changes):
        store.change({key: value})
        if number in looks:
            assert store.snapshot.hosts == store.view.hosts
    seen, fresh = store.snapshot, Store({key: entry.value for key, entry in store.entries.items()}).snapshot
    assert (seen.networks, seen.hosts, seen.live) == (fresh.networks, fresh.hosts, fresh.live)
    assert (set(seen.blocks), set(seen.fixed)) == (set(fresh.blocks), set(fresh.fixed))
    assert (len(seen.blocks), len(seen.fixed)) == (len(fresh.blocks), len(fresh.fixed))


def test_a_snapshot_shares_with_the_one_before_it_what_has_not_changed() -> None:
    """Of two stores too; or each peer's change would have all peers looked at."""
    peers = [HostId(f"00000000-0000-0000-0000-{number:012}") for number in range(100, 2100)]
    wide = replace(an_overlay(), subnets=(a_subnet("10.0.0.0/8", block_length=24),))
    blocks = [a_block(f"10.{number // 250 + 1}.{number % 250}.0/24", peer) for number, peer in enumerate(peers)]
    store = Store({NETWORK: encode_network(wide), keys.number_key(4097): STATICNET.encode()})
    store.change({keys.host_key(peer): encode_host(replace(a_host(2), id=peer, name="peer")) for peer in peers})
    store.change({keys.live_key(peer): b"{}" for peer in peers} | {block_key(b): encode_block(b) for b in blocks})
    local = Store({keys.network_key("app"): encode_network(a_local_network())})

    def join() -> Snapshot:
        return join_snapshot([local.view, store.view], a_host(1), complete=True)

    before = join()
    assert len(before.hosts) == len(before.live) == len(before.blocks) == len(peers)
    store.change(
        {
            keys.host_key(H3): encode_host(a_host(3)),
            keys.live_key(H3): b"{}",
            block_key(more := a_block("10.99.0.0/24", H3)): encode_block(more),
        }
    )
    after = join()
    held, was_held = (snapshot.claims_in(STATICNET).holdings for snapshot in (after, before))
    for new, old in (
        (after.hosts.rows, before.hosts.rows),
        (after.live.members, before.live.members),
        (held, was_held),
    ):
        assert sum(shard is not known for shard, known in zip(new.shards, old.shards, strict=True)) == 1
        assert new.changed_keys(old) == {H3}  # type: ignore[arg-type]
