import asyncio

import pytest

from netagent.errors import Unavailable
from netagent.reconcile.ports import Changes, Put, Relisted
from netagent.store.memory import MemoryStore
from netagent.store.subscriptions import BACKLOG_LIMIT

A = "/netagent/v1/a"


async def test_disconnected_store_raises_and_its_watches_wait() -> None:
    store = MemoryStore()
    watch = store.watch("/")
    await anext(watch)
    await store.disconnect()
    with pytest.raises(Unavailable):
        await store.get(A)
    with pytest.raises(Unavailable):
        await store.transact([], [Put(key=A, value=b"")])
    pending = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    assert not pending.done()
    await store.reconnect()
    await store.transact([], [Put(key=A, value=b"")])
    assert isinstance(await pending, Changes)


async def test_watch_that_was_away_goes_on_without_a_gap() -> None:
    store = MemoryStore()
    watch = store.watch("/")
    await anext(watch)
    await store.transact([], [Put(key=A, value=b"1")])
    await store.disconnect()
    await store.reconnect()
    event = await anext(watch)
    assert isinstance(event, Changes)
    assert event.changes[0].value == b"1"


async def test_compaction_makes_watches_list_anew() -> None:
    store = MemoryStore()
    watch = store.watch("/")
    await anext(watch)
    await store.transact([], [Put(key=A, value=b"1")])
    store.compact()
    event = await anext(watch)
    assert isinstance(event, Relisted)
    assert [entry.key for entry in event.listing.entries] == [A]


async def test_watch_that_lags_too_far_lists_anew() -> None:
    store = MemoryStore()
    watch = store.watch("/")
    await anext(watch)
    for number in range(BACKLOG_LIMIT + 1):
        await store.transact([], [Put(key=A, value=b"%d" % number)])
    event = await anext(watch)
    assert isinstance(event, Relisted)
    assert event.listing.entries[0].value == b"%d" % BACKLOG_LIMIT


async def test_expired_lease_removes_leased_keys_and_is_told() -> None:
    store = MemoryStore()
    told: list[bool] = []
    store.on_lease_replaced(lambda: told.append(True))
    await store.transact([], [Put(key=A, value=b"", leased=True), Put(key="/b", value=b"")])
    watch = store.watch("/")
    await anext(watch)
    store.expire_lease()
    event = await anext(watch)
    assert isinstance(event, Changes)
    assert [(change.key, change.value) for change in event.changes] == [(A, None)]
    assert told == [True]
