"""A cluster of three members that loses some: no write happens twice, no event is missed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from netagent.errors import Unavailable
from netagent.reconcile.ports import Changes, Put, Unchanged
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.store import EtcdStore
from tests.support.etcd import EtcdServer, etcd_cluster
from tests.support.eventually import eventually

pytestmark = pytest.mark.cluster

COUNTER = "/netagent/v1/counter"


@pytest.fixture
def members(tmp_path: Path) -> Iterator[tuple[EtcdServer, ...]]:
    with etcd_cluster(tmp_path, members=3) as servers:
        yield servers


@pytest.fixture
async def store(members: tuple[EtcdServer, ...]) -> AsyncIterator[EtcdStore]:
    """A store that talks to the leader as long as that answers."""
    leader = leader_of(members)
    endpoints = [leader.endpoint, *(member.endpoint for member in members if member is not leader)]
    store = EtcdStore(parse_access("etcd://" + ",".join(endpoints)))
    yield store
    await store.close()


def leader_of(members: tuple[EtcdServer, ...]) -> EtcdServer:
    for member in members:
        (status,) = json.loads(member.ctl("endpoint", "status", "-w", "json"))
        if status["Status"]["leader"] == status["Status"]["header"]["member_id"]:
            return member
    raise AssertionError("no leader")


async def count_up(store: EtcdStore, until: float) -> tuple[int, float]:
    """Increment the counter by compare-and-swap; return how often, and the longest time one took."""
    revision = await store.transact([], [Put(key=COUNTER, value=b"0")])
    done, longest = 0, 0.0
    while time.monotonic() < until:
        started = time.monotonic()
        assert revision is not None
        put = Put(key=COUNTER, value=b"%d" % (done + 1))
        revision = await store.transact([Unchanged(key=COUNTER, revision=revision)], [put])
        assert revision is not None, "somebody else wrote: one of ours was carried out twice"
        done += 1
        longest = max(longest, time.monotonic() - started)
    return done, longest


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_writes_and_watch_go_on_when_the_leader_is_lost(
    members: tuple[EtcdServer, ...], store: EtcdStore, fault: str
) -> None:
    leader = leader_of(members)
    watch = store.watch("/netagent/v1/")
    await anext(watch)
    counting = asyncio.ensure_future(count_up(store, time.monotonic() + 6))
    told: list[int] = []

    async def listen() -> None:
        async for event in watch:
            assert isinstance(event, Changes)
            told.extend(int(change.value or b"-1") for change in event.changes)

    listening = asyncio.ensure_future(listen())
    await asyncio.sleep(1)
    leader.kill() if fault == "kill" else leader.pause()
    done, longest = await counting
    assert longest < 5.5

    async def has_told_all() -> bool:
        return bool(told) and told[-1] == done

    await eventually(has_told_all, within=20)
    assert told == list(range(done + 1))
    listening.cancel()


async def test_without_a_majority_calls_fail_in_time_and_recover(
    members: tuple[EtcdServer, ...], store: EtcdStore
) -> None:
    await store.transact([], [Put(key=COUNTER, value=b"1")])
    for member in members[1:]:
        member.kill()
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await store.get(COUNTER)
    assert time.monotonic() - started < 5.5
    for member in members[1:]:
        member.spawn()
    for member in members[1:]:
        member.wait_healthy()
    entry = await store.get(COUNTER)
    assert entry is not None
    assert entry.value == b"1"
