"""A cluster of three members that loses some: no write happens twice, no event is missed."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from netagent.errors import Unavailable
from netagent.reconcile.ports import Changes, Put, StoreEntry, Unchanged
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.store import EtcdStore
from tests.support.etcd import EtcdServer, etcd_cluster
from tests.support.eventually import eventually
from tests.support.stopwatch import running_time

pytestmark = pytest.mark.cluster

COUNTER = "/netagent/v1/counter"


@pytest.fixture
def members(tmp_path: Path) -> Iterator[tuple[EtcdServer, ...]]:
    with etcd_cluster(tmp_path, members=3) as servers:
        yield servers


@pytest.fixture
async def store(members: tuple[EtcdServer, ...]) -> AsyncIterator[EtcdStore]:
    """A store that talks to the leader as long as that answers."""
    leader = await leader_of(members)
    endpoints = [leader.endpoint, *(member.endpoint for member in members if member is not leader)]
    store = EtcdStore(parse_access("etcd://" + ",".join(endpoints)))
    yield store
    await store.close()


async def leader_of(members: tuple[EtcdServer, ...]) -> EtcdServer:
    """Return the leader; on a busy machine there may be none for a moment."""

    async def found() -> EtcdServer | None:
        for member in members:
            (status,) = json.loads(member.ctl("endpoint", "status", "-w", "json"))
            if status["Status"].get("leader") == status["Status"]["header"]["member_id"]:
                return member
        return None

    leader = await eventually(found)
    assert leader is not None
    return leader


async def read_counter(store: EtcdStore) -> StoreEntry | None:
    try:
        return await store.get(COUNTER)
    except Unavailable:
        return None


class Counting:
    """Increments the counter by compare-and-swap until told to stop; ``done`` is how often."""

    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self._is_enough = False
        self._task = asyncio.ensure_future(self._count())
        self.done = 0

    async def _count(self) -> None:
        revision = await self._store.transact([], [Put(key=COUNTER, value=b"0")])
        while not self._is_enough:
            assert revision is not None, "somebody else wrote: one of ours was carried out twice"
            value = b"%d" % (self.done + 1)
            try:
                revision = await self._store.transact(
                    [Unchanged(key=COUNTER, revision=revision)], [Put(key=COUNTER, value=value)]
                )
            except Unavailable:  # the members took their time to find a leader
                entry = await eventually(partial(read_counter, self._store))
                assert entry is not None
                if entry.value != value:
                    assert entry.revision == revision
                    continue
                revision = entry.revision
            self.done += 1

    async def goes_on(self) -> None:
        """Wait until it has gone some way."""
        goal = self.done + 50

        async def is_there() -> bool:
            if self._task.done():
                self._task.result()
            return self.done >= goal

        await eventually(is_there, within=60)

    async def stop(self) -> None:
        """Let it end."""
        self._is_enough = True
        await self._task


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_writes_and_watch_go_on_when_the_leader_is_lost(
    members: tuple[EtcdServer, ...], store: EtcdStore, fault: str
) -> None:
    leader = await leader_of(members)
    watch = store.watch("/netagent/v1/")
    await anext(watch)
    counting = Counting(store)
    told: list[int] = []

    async def listen() -> None:
        async for event in watch:
            assert isinstance(event, Changes)
            told.extend(int(change.value or b"-1") for change in event.changes)

    listening = asyncio.ensure_future(listen())
    await counting.goes_on()
    leader.kill() if fault == "kill" else leader.pause()
    await counting.goes_on()
    await counting.stop()

    async def has_told_all() -> bool:
        return bool(told) and told[-1] == counting.done

    await eventually(has_told_all)
    assert told == list(range(counting.done + 1))
    listening.cancel()


async def test_without_a_majority_calls_fail_in_time_and_recover(
    members: tuple[EtcdServer, ...], store: EtcdStore
) -> None:
    await store.transact([], [Put(key=COUNTER, value=b"1")])
    for member in members[1:]:
        member.kill()
    async with running_time() as elapsed:
        with pytest.raises(Unavailable):
            await store.get(COUNTER)
        assert elapsed() < 5.5
    for member in members[1:]:
        member.spawn()
    for member in members[1:]:
        member.wait_healthy()
    entry = await eventually(partial(read_counter, store))
    assert entry is not None
    assert entry.value == b"1"
