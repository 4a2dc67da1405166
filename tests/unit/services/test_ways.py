"""The ways to peers: whatever changes, they are what a fresh look finds, and a peer's change costs that peer's ways."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netagent.model.claims import Claims
from netagent.model.host_index import Hosts
from netagent.model.ids import HostId
from netagent.model.snapshot import Snapshot
from netagent.plan import peers as peers_module
from netagent.services.ways import Way, Ways, ways_to_peers
from tests.support.world import H1, STATICNET, a_block, a_host, an_overlay, two_hosts

PEERS = [HostId(f"peer{number}") for number in range(5)]


def among(count: int) -> Snapshot:
    """Return what h1 sees of so many peers, all of which live."""
    identities = [HostId(f"peer{number}") for number in range(count)]
    blocks = [a_block(f"192.168.{number}.0/24", peer) for number, peer in enumerate(identities, 2)]
    return replace(
        two_hosts(an_overlay()),
        hosts=Hosts.of(
            replace(a_host(2), id=peer, name=peer, underlay=(a_host(2).underlay[0] + number,))
            for number, peer in enumerate(identities)
        ),
        live=Snapshot(host=a_host(1)).live.updated(identities),
        claims=Claims.of((a_block("192.168.1.0/24", H1), *blocks)),
    )


CHANGES: list[Callable[[Snapshot, HostId], Snapshot]] = [
    lambda s, peer: replace(s, live=s.live.updated(gone=[peer])),
    lambda s, peer: replace(s, live=s.live.updated([peer])),
    lambda s, peer: replace(s, hosts=s.hosts.updated(gone=[peer])),
    lambda s, peer: replace(s, hosts=s.hosts.updated([replace(a_host(2), id=peer, name="renamed")])),
    lambda s, peer: replace(s, hosts=s.hosts.updated([replace(a_host(2), id=peer, mtu=1400)])),
    lambda s, peer: replace(
        s, claims=s.claims.updated(gone=[b for holding in s.claims.held_by(peer) for b in holding.blocks])
    ),
    lambda s, peer: replace(s, claims=s.claims.updated([a_block(f"192.168.{100 + PEERS.index(peer)}.0/24", peer)])),
    lambda s, peer: replace(s, networks={} if s.networks else {STATICNET: an_overlay()}),
    lambda s, peer: s,
]


def no_order(way: Way) -> tuple[int, str, str]:
    return 0, way.host.id, ""


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(PEERS), st.integers(0, 3)), max_size=8))
def test_after_any_changes_they_are_what_a_fresh_look_finds(
    steps: list[tuple[Callable[[Snapshot, HostId], Snapshot], HostId, int]],
) -> None:
    snapshot, ways, settled = among(5), Ways(), dict[object, Way]()
    ways.follow(snapshot)
    for change, peer, answers in steps:
        for way in ways.next(answers, no_order):
            ways.mark_in_order(way)
            settled[way.id] = way
        old, snapshot = dict(ways.known), change(snapshot, peer)
        dropped = ways.follow(snapshot)
        fresh = {way.id: way for way in ways_to_peers(snapshot)}
        settled = {key: way for key, way in settled.items() if fresh.get(key) == way and way.is_live}
        assert ways.known == fresh
        assert ways.waiting == {key: way for key, way in fresh.items() if way.is_live and key not in settled}
        live = {key for key, way in fresh.items() if way.is_live}
        assert {way.id for way in ways.next(99, no_order)} == live
        assert {key for key, way in old.items() if way.is_live and key not in live} <= {*dropped}


def test_a_peers_change_has_its_own_ways_looked_at_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ways, snapshot = Ways(), among(200)
    ways.follow(snapshot)
    rendered: list[HostId] = []
    original = peers_module.Peer

    def counted(**parts: object) -> object:
        rendered.append(parts["host"].id)  # type: ignore[attr-defined]
        return original(**parts)  # type: ignore[arg-type]

    monkeypatch.setattr(peers_module, "Peer", counted)
    peer = HostId("peer7")
    assert not ways.follow(replace(snapshot, claims=snapshot.claims.updated([a_block("192.168.250.0/24", peer)])))
    assert rendered == [peer]


def test_those_that_wait_come_first_and_then_the_longest_unasked() -> None:
    ways = Ways()
    ways.follow(among(4))
    first, second, third, fourth = ways.next(4, no_order)
    for way in (second, first, fourth):
        ways.mark_in_order(way)
    assert ways.next(3, no_order) == [third, second, first]
    ways.mark_waiting(fourth)
    assert ways.next(3, lambda way: (int(way is third), "", "")) == [fourth, third, second]
