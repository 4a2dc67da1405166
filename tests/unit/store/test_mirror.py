import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netagent.reconcile.ports import Delete, Put, StoreEntry
from netagent.store.memory import MemoryStore
from netagent.store.mirror import Mirror
from netagent.store.mirror_file import VERSION, MirrorState, read_mirror_file, write_mirror_file

PREFIX = "/netagent/v1/"
A, B = f"{PREFIX}a", f"{PREFIX}b"


@asynccontextmanager
async def running(mirror: Mirror) -> AsyncIterator[Mirror]:
    task = asyncio.ensure_future(mirror.run())
    try:
        yield mirror
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def put(store: MemoryStore, key: str, value: bytes) -> int:
    revision = await store.transact([], [Put(key=key, value=value)])
    assert revision is not None
    return revision


async def test_mirror_holds_what_the_store_holds(store: MemoryStore) -> None:
    await put(store, A, b"1")
    async with running(Mirror(store, PREFIX)) as mirror:
        assert not mirror.is_complete
        assert await mirror.wait_until(lambda: mirror.is_synced, within=30)
        revision = await put(store, B, b"2")
        await store.transact([], [Delete(key=A)])
        assert await mirror.wait_for(revision + 1)
        assert dict(mirror.entries) == {B: StoreEntry(key=B, value=b"2", revision=revision)}


async def test_wait_for_gives_a_writer_its_own_write(store: MemoryStore) -> None:
    async with running(Mirror(store, PREFIX)) as mirror:
        assert await mirror.wait_until(lambda: mirror.is_synced, within=30)
        assert await mirror.wait_for(await put(store, A, b"1"))
        assert mirror.entries[A].value == b"1"


async def test_wait_for_gives_up_in_time(store: MemoryStore) -> None:
    async with running(Mirror(store, PREFIX)) as mirror:
        assert not await mirror.wait_for(10**6, within=0.05)


async def test_subscribers_hear_what_changed(store: MemoryStore) -> None:
    heard: list[frozenset[str]] = []
    await put(store, A, b"1")
    mirror = Mirror(store, PREFIX)
    unsubscribe = mirror.subscribe(heard.append)
    async with running(mirror):
        await mirror.wait_until(lambda: mirror.is_synced, within=30)
        revision = await store.transact([], [Put(key=A, value=b"2"), Put(key=B, value=b"2")])
        assert revision is not None
        await mirror.wait_for(revision)
        unsubscribe()
        await mirror.wait_for(await put(store, A, b"3"))
    assert heard == [{A}, {A, B}]


async def test_first_contact_is_told_even_if_nothing_changed(store: MemoryStore) -> None:
    heard: list[frozenset[str]] = []
    mirror = Mirror(store, PREFIX)
    mirror.subscribe(heard.append)
    async with running(mirror):
        await mirror.wait_until(lambda: mirror.is_synced, within=30)
    assert heard == [frozenset()]


async def test_listing_anew_tells_only_the_difference(store: MemoryStore) -> None:
    heard: list[frozenset[str]] = []
    await put(store, A, b"1")
    mirror = Mirror(store, PREFIX)
    async with running(mirror):
        await mirror.wait_until(lambda: mirror.is_synced, within=30)
        mirror.subscribe(heard.append)
        await store.disconnect()
        await store.reconnect()
        revision = await store.transact([], [Delete(key=A), Put(key=B, value=b"")])
        store.compact()
        assert revision is not None
        await mirror.wait_for(revision)
        store.compact()
        await mirror.wait_for(await put(store, A, b""))
    assert heard == [{A, B}, {A}]


async def test_saved_state_is_there_at_the_next_start_without_the_store(store: MemoryStore, tmp_path: Path) -> None:
    revision = await put(store, A, b"1")
    async with running(Mirror(store, PREFIX, snapshot_path=tmp_path / "mirror")) as mirror:
        await mirror.wait_until(lambda: mirror.is_synced, within=30)
    await store.disconnect()
    again = Mirror(store, PREFIX, snapshot_path=tmp_path / "mirror")
    assert again.is_loaded
    assert again.is_complete
    assert not again.is_synced
    assert again.revision == revision
    assert dict(again.entries) == {A: StoreEntry(key=A, value=b"1", revision=revision)}


async def test_changes_are_saved_while_running(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.store.mirror.SAVE_DELAY_S", 0.01)
    path = tmp_path / "mirror"
    async with running(Mirror(store, PREFIX, snapshot_path=path)):
        revision = await put(store, A, b"1")
        async with asyncio.timeout(30):
            while (state := read_mirror_file(path, prefix=PREFIX)) is None or state.revision < revision:
                await asyncio.sleep(0.01)
    assert state.entries == [(A, b"1", revision)]


async def test_mirror_that_never_heard_the_store_saves_nothing(store: MemoryStore, tmp_path: Path) -> None:
    await store.disconnect()
    async with running(Mirror(store, PREFIX, snapshot_path=tmp_path / "mirror")):
        await asyncio.sleep(0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe garbage", b"\x81\xa1x\x01"], ids=["empty", "garbage", "other"])
async def test_damaged_file_is_set_aside(store: MemoryStore, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mirror"
    path.write_bytes(content)
    mirror = Mirror(store, PREFIX, snapshot_path=path)
    assert not mirror.is_complete
    assert (tmp_path / "mirror.corrupt").read_bytes() == content
    assert not path.exists()


async def test_truncated_file_is_set_aside(store: MemoryStore, tmp_path: Path) -> None:
    path = tmp_path / "mirror"
    entries = [StoreEntry(key=A, value=b"1" * 100, revision=1)]
    write_mirror_file(path, MirrorState.of(entries, cluster_id="c", prefix=PREFIX, revision=1))
    path.write_bytes(path.read_bytes()[:-20])
    assert not Mirror(store, PREFIX, snapshot_path=path).is_loaded


@pytest.mark.parametrize("other", [{"prefix": "/other/"}, {"version": VERSION + 1}], ids=["prefix", "version"])
async def test_file_of_another_prefix_or_version_is_not_used(
    store: MemoryStore, tmp_path: Path, other: dict[str, Any]
) -> None:
    path = tmp_path / "mirror"
    state = msgspec.structs.replace(MirrorState.of([], cluster_id="c", prefix=PREFIX, revision=1), **other)
    write_mirror_file(path, state)
    assert not Mirror(store, PREFIX, snapshot_path=path).is_loaded


async def test_unwritable_folder_does_not_end_the_mirror(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("netagent.store.mirror.SAVE_DELAY_S", 0.01)
    async with running(Mirror(store, PREFIX, snapshot_path=tmp_path / "missing" / "mirror")) as mirror:
        await mirror.wait_for(await put(store, A, b"1"))
        await asyncio.sleep(0.05)
        assert await mirror.wait_for(await put(store, A, b"2"))
    assert "cannot save" in caplog.text


async def test_another_cluster_is_reported(
    store: MemoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mirror"
    entries = [StoreEntry(key=A, value=b"old", revision=900)]
    write_mirror_file(path, MirrorState.of(entries, cluster_id="before", prefix=PREFIX, revision=900))
    async with running(Mirror(store, PREFIX, snapshot_path=path)) as mirror:
        await mirror.wait_until(lambda: mirror.is_synced, within=30)
        assert dict(mirror.entries) == {}
        assert mirror.revision < 900
    assert "taken the place of before" in caplog.text
