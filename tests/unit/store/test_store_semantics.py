"""What every Store promises, asked of each kind."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from netagent.errors import Bug
from netagent.reconcile.ports import (
    Absent,
    AbsentBelow,
    Change,
    Changes,
    Delete,
    Guard,
    Put,
    Relisted,
    Store,
    StoreEntry,
    Unchanged,
    WatchEvent,
)
from netagent.store.transaction import TRANSACTION_LIMIT

A, B, C = "/netagent/v1/a", "/netagent/v1/b", "/netagent/v1/c"


async def put(store: Store, key: str, value: bytes) -> int:
    revision = await store.transact([], [Put(key=key, value=value)])
    assert revision is not None
    return revision


async def next_of(watch: AsyncIterator[WatchEvent]) -> WatchEvent:
    async with asyncio.timeout(30):
        return await anext(watch)


async def test_absent_key_is_none(store: Store) -> None:
    assert await store.get(A) is None


async def test_written_entry_carries_the_revision_of_its_transaction(store: Store) -> None:
    revision = await put(store, A, b"one")
    assert await store.get(A) == StoreEntry(key=A, value=b"one", revision=revision)


async def test_every_write_raises_the_revision(store: Store) -> None:
    first = await put(store, A, b"one")
    second = await put(store, A, b"one")
    assert second > first
    assert await store.get(A) == StoreEntry(key=A, value=b"one", revision=second)


async def test_one_transaction_has_one_revision(store: Store) -> None:
    revision = await store.transact([], [Put(key=A, value=b"a"), Put(key=B, value=b"b")])
    assert [entry.revision for entry in (await store.list("/netagent/v1/")).entries] == [revision, revision]


async def test_list_is_sorted_and_keeps_to_the_prefix(store: Store) -> None:
    for key in (
        "/netagent/v1/hosts/b",
        "/netagent/v1/hosts/a",
        "/netagent/v1/hostsx",
        "/netagent/v1/Hosts/c",
        "/other",
    ):
        await put(store, key, b"")
    listing = await store.list("/netagent/v1/hosts/")
    assert [entry.key for entry in listing.entries] == ["/netagent/v1/hosts/a", "/netagent/v1/hosts/b"]


async def test_prefix_is_taken_literally(store: Store) -> None:
    await put(store, "/netagent/v1/100", b"")
    assert not (await store.list("/netagent/v1/1%")).entries
    assert not (await store.list("/netagent/v1/1_0")).entries


async def test_list_tells_the_store_revision_even_if_empty(store: Store) -> None:
    revision = await put(store, A, b"")
    assert (await store.list("/nothing/")).revision == revision


async def test_keys_and_values_may_be_any_text_and_bytes(store: Store) -> None:
    key, value = "/netagent/v1/ключ-鍵-🔑", bytes(range(256))
    await put(store, key, value)
    assert (await store.list("/netagent/v1/ключ")).entries[0].value == value
    assert await store.transact([AbsentBelow(prefix="/netagent/v1/ключ-鍵")], [Delete(key=key)]) is None


@pytest.mark.parametrize(
    "guard", [Absent(key=A), Unchanged(key=A, revision=1), AbsentBelow(prefix="/netagent/v1/")], ids=repr
)
async def test_failed_guard_prevents_every_write(store: Store, guard: Guard) -> None:
    await put(store, A, b"held")
    assert await store.transact([guard], [Put(key=B, value=b""), Delete(key=A)]) is None
    assert await store.get(A) is not None
    assert await store.get(B) is None


async def test_all_guards_must_hold(store: Store) -> None:
    revision = await put(store, A, b"1")
    assert await store.transact([Unchanged(key=A, revision=revision), Absent(key=A)], [Delete(key=A)]) is None
    assert await store.transact([Unchanged(key=A, revision=revision), Absent(key=B)], [Delete(key=A)]) is not None


async def test_changed_key_fails_the_guard_of_the_slower_writer(store: Store) -> None:
    revision = await put(store, A, b"1")
    assert await store.transact([Unchanged(key=A, revision=revision)], [Put(key=A, value=b"fast")])
    assert await store.transact([Unchanged(key=A, revision=revision)], [Put(key=A, value=b"slow")]) is None


async def test_missing_key_is_not_unchanged(store: Store) -> None:
    revision = await put(store, A, b"")
    await store.transact([], [Delete(key=A)])
    assert await store.transact([Unchanged(key=A, revision=revision)], [Put(key=B, value=b"")]) is None


async def test_deleted_key_can_be_created_again(store: Store) -> None:
    await put(store, A, b"1")
    await store.transact([], [Delete(key=A)])
    assert await store.transact([Absent(key=A)], [Put(key=A, value=b"2")]) is not None


async def test_deleting_an_absent_key_succeeds(store: Store) -> None:
    assert await store.transact([], [Delete(key=A)]) is not None


async def test_guards_alone_are_a_question(store: Store) -> None:
    revision = await put(store, A, b"")
    assert await store.transact([Unchanged(key=A, revision=revision)], []) == revision
    assert await store.transact([Absent(key=A)], []) is None


async def test_only_one_of_many_creators_wins(store: Store) -> None:
    attempts = [store.transact([Absent(key=A)], [Put(key=A, value=b"%d" % number)]) for number in range(40)]
    won = [revision for revision in await asyncio.gather(*attempts) if revision is not None]
    assert len(won) == 1


async def test_concurrent_increments_lose_none(store: Store) -> None:
    await put(store, A, b"0")

    async def increment() -> None:
        while entry := await store.get(A):
            value = b"%d" % (int(entry.value) + 1)
            if await store.transact([Unchanged(key=A, revision=entry.revision)], [Put(key=A, value=value)]):
                return

    await asyncio.gather(*(increment() for _ in range(10)))
    entry = await store.get(A)
    assert entry is not None
    assert entry.value == b"10"


@pytest.mark.parametrize("count", [TRANSACTION_LIMIT, TRANSACTION_LIMIT + 1])
async def test_transaction_size_is_limited(store: Store, count: int) -> None:
    guards = [Absent(key=f"{A}{number}") for number in range(count)]
    writes = [Put(key=f"{A}{number}", value=b"") for number in range(count)]
    if count <= TRANSACTION_LIMIT:
        assert await store.transact(guards, writes) is not None
    else:
        with pytest.raises(Bug, match="128 guards and 128 writes"):
            await store.transact(guards, writes)


async def test_writing_a_key_twice_is_a_bug(store: Store) -> None:
    with pytest.raises(Bug, match="twice"):
        await store.transact([], [Put(key=A, value=b""), Delete(key=A)])


async def test_watch_begins_with_all_there_is(store: Store) -> None:
    revision = await put(store, A, b"a")
    event = await next_of(store.watch("/netagent/v1/"))
    assert isinstance(event, Relisted)
    assert event.listing.entries == (StoreEntry(key=A, value=b"a", revision=revision),)
    assert event.listing.revision == revision


async def test_watch_tells_puts_and_deletes_in_order_and_keeps_to_the_prefix(store: Store) -> None:
    watch = store.watch("/netagent/v1/")
    await next_of(watch)
    first = await put(store, A, b"1")
    await put(store, "/elsewhere", b"")
    second = await put(store, A, b"2")
    third = await store.transact([], [Delete(key=A)])
    changes: list[Change] = []
    while len(changes) < 3:
        event = await next_of(watch)
        assert isinstance(event, Changes)
        changes += event.changes
        assert event.revision == changes[-1].revision
    assert [(change.value, change.revision) for change in changes] == [(b"1", first), (b"2", second), (None, third)]


async def test_watch_gives_a_transaction_in_one_piece(store: Store) -> None:
    watch = store.watch("/netagent/v1/")
    await next_of(watch)
    await put(store, B, b"old")
    assert isinstance(await next_of(watch), Changes)
    revision = await store.transact([], [Put(key=A, value=b"a"), Delete(key=B), Put(key=C, value=b"c")])
    event = await next_of(watch)
    assert isinstance(event, Changes)
    assert event.revision == revision
    assert sorted((change.key, change.value) for change in event.changes) == [(A, b"a"), (B, None), (C, b"c")]


async def test_watch_is_silent_about_deletes_of_absent_keys(store: Store) -> None:
    watch = store.watch("/netagent/v1/")
    await next_of(watch)
    await store.transact([], [Delete(key=A)])
    await put(store, B, b"")
    event = await next_of(watch)
    assert isinstance(event, Changes)
    assert [change.key for change in event.changes] == [B]


async def test_slow_reader_of_a_watch_misses_nothing(store: Store) -> None:
    watch = store.watch("/netagent/v1/")
    await next_of(watch)
    for number in range(200):
        await put(store, A, b"%d" % number)
    values: list[bytes | None] = []
    while len(values) < 200:
        event = await next_of(watch)
        assert isinstance(event, Changes)
        values += [change.value for change in event.changes]
    assert values == [b"%d" % number for number in range(200)]


async def test_closing_ends_watches(store: Store) -> None:
    watch = store.watch("/netagent/v1/")
    await next_of(watch)
    waiting = asyncio.ensure_future(next_of(watch))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
