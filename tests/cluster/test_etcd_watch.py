"""Watches of a real etcd through restarts, compaction, resets, silence and restores: no gap, no repetition."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from netagent.errors import Unavailable
from netagent.reconcile.ports import Absent, Changes, Delete, Doubt, Put, Relisted, WatchEvent
from netagent.services.stores import StoreAccess
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.proto import etcd_pb2 as pb
from netagent.store.etcd.store import EtcdStore
from netagent.store.etcd.stream import WatchStream
from netagent.store.etcd.watch import ANSWER_S
from tests.support.etcd import EtcdServer, etcd_server, followed
from tests.support.eventually import eventually
from tests.support.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.cluster

PREFIX = "/netagent/v1/"
KEY = f"{PREFIX}later/x"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path) as server:
        yield server


@pytest.fixture
async def writer(etcd: EtcdServer) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(parse_access(etcd.url))
    yield store
    await store.close()


@pytest.fixture
async def proxy(etcd: EtcdServer) -> AsyncIterator[TcpProxy]:
    async with tcp_proxy(etcd.client_port) as proxy:
        yield proxy


@pytest.fixture
async def watcher(proxy: TcpProxy) -> AsyncIterator[EtcdStore]:
    """A store whose connections all go through ``proxy``."""
    store = EtcdStore(parse_access(f"etcd://127.0.0.1:{proxy.port}"))
    yield store
    await store.close()


async def next_of(watch: AsyncIterator[WatchEvent], *, within: float = 30) -> WatchEvent:
    async with asyncio.timeout(within):
        return await anext(watch)


async def write(store: EtcdStore, *values: int) -> None:
    async def written(value: int) -> bool:
        try:
            return bool(await store.transact([], [Put(key=f"{PREFIX}a", value=b"%d" % value)]))
        except Unavailable:
            return False

    for value in values:
        await eventually(partial(written, value))


async def values_until(watch: AsyncIterator[WatchEvent], last: int) -> list[int]:
    """Return the values told up to ``last``; a Relisted in between fails the test."""
    told: list[int] = []
    while not told or told[-1] != last:
        event = await next_of(watch)
        assert isinstance(event, Changes)
        told += [int(change.value or b"-1") for change in event.changes]
    return told


async def test_watch_survives_a_restart_of_etcd_without_gap_or_repetition(etcd: EtcdServer, writer: EtcdStore) -> None:
    watch = writer.watch(PREFIX)
    await next_of(watch)
    await write(writer, *range(10))
    assert await values_until(watch, 9) == list(range(10))
    etcd.kill()
    etcd.start()
    await write(writer, *range(10, 20))
    assert await values_until(watch, 19) == list(range(10, 20))


async def test_watch_catches_up_after_its_connection_is_reset_again_and_again(
    writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy
) -> None:
    watch = watcher.watch(PREFIX)
    await next_of(watch)

    async def write_and_reset() -> None:
        for value in range(300):
            await write(writer, value)
            if value % 60 == 30:
                proxy.drop_connections()

    writing = asyncio.ensure_future(write_and_reset())
    assert await values_until(watch, 299) == list(range(300))
    await writing


async def test_watch_lists_anew_after_compaction_while_it_was_away(
    etcd: EtcdServer, writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy
) -> None:
    watch = watcher.watch(PREFIX)
    await next_of(watch)
    await write(writer, 1)
    assert await values_until(watch, 1) == [1]
    proxy.black_hole = True
    await write(writer, 2, 3)
    revision = await writer.transact([], [Put(key=f"{PREFIX}b", value=b"")])
    etcd.ctl("compact", str(revision))
    proxy.black_hole = False
    proxy.drop_connections()
    event = await next_of(watch)
    assert isinstance(event, Relisted)
    assert event.why is Doubt.COMPACTED
    assert [(entry.key, entry.value) for entry in event.listing.entries] == [(f"{PREFIX}a", b"3"), (f"{PREFIX}b", b"")]
    await write(writer, 4)
    assert await values_until(watch, 4) == [4]


async def test_watch_tells_deletes_that_happened_while_it_was_away(
    writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy
) -> None:
    watch = watcher.watch(PREFIX)
    await next_of(watch)
    await write(writer, 1)
    assert await values_until(watch, 1) == [1]
    proxy.black_hole = True
    await writer.transact([], [Delete(key=f"{PREFIX}a")])
    proxy.black_hole = False
    proxy.drop_connections()
    event = await next_of(watch)
    assert isinstance(event, Changes)
    assert [(change.key, change.value) for change in event.changes] == [(f"{PREFIX}a", None)]


async def test_watch_lists_anew_when_another_cluster_answers(
    writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy, tmp_path: Path
) -> None:
    await write(writer, 1)
    watch = watcher.watch(PREFIX)
    await next_of(watch)
    before = watcher.cluster_id
    with etcd_server(tmp_path) as another:
        store = EtcdStore(parse_access(another.url))
        await write(store, *range(10))
        proxy.target_port = another.client_port
        proxy.drop_connections()
        event = await next_of(watch)
        assert isinstance(event, Relisted)
        assert event.why is Doubt.ANOTHER_STORE
        assert [entry.value for entry in event.listing.entries] == [b"9"]
        assert watcher.cluster_id != before
        await write(store, 10)
        assert await values_until(watch, 10) == [10]
        await store.close()


async def test_watch_lists_anew_when_the_revision_went_back(etcd: EtcdServer, writer: EtcdStore) -> None:
    """As after a restore of the data directory: the cluster keeps its id."""
    await write(writer, 1)
    etcd.stop()
    etcd.save()
    etcd.start()
    await write(writer, 2, 3)
    watch = writer.watch(PREFIX)
    await next_of(watch)
    etcd.kill()
    etcd.restore()
    etcd.start()
    event = await next_of(watch)
    assert isinstance(event, Relisted)
    assert event.why is Doubt.ANOTHER_STORE
    assert [entry.value for entry in event.listing.entries] == [b"1"]


@pytest.mark.parametrize("was_saved", [False, True], ids=["wiped", "restored"])
async def test_watch_lists_anew_when_another_history_has_overtaken_it(
    etcd: EtcdServer, writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy, was_saved: bool
) -> None:
    """The same cluster id, the same member, and by the time the watch is back a revision beyond its own."""
    await write(writer, 1)
    if was_saved:
        etcd.stop()
        etcd.save()
        etcd.start()
    watch = watcher.watch(PREFIX)
    await next_of(watch)
    await write(writer, 2, 3)
    assert await values_until(watch, 3) == [2, 3]
    cluster = watcher.cluster_id
    proxy.black_hole = True
    etcd.kill()
    if was_saved:
        etcd.restore()
    else:
        etcd.wipe()
    etcd.start()
    etcd.ctl("put", f"{PREFIX}b", "new")
    for value in range(10, 20):
        etcd.ctl("put", f"{PREFIX}a", str(value))
    proxy.black_hole = False
    proxy.drop_connections()
    event = await next_of(watch)
    assert isinstance(event, Relisted)
    assert [(entry.key, entry.value) for entry in event.listing.entries] == [
        (f"{PREFIX}a", b"19"),
        (f"{PREFIX}b", b"new"),
    ]
    assert watcher.cluster_id == cluster
    etcd.ctl("put", f"{PREFIX}a", "20")
    assert await values_until(watch, 20) == [20]


async def test_a_claim_is_decided_on_the_new_history_at_once(etcd: EtcdServer, writer: EtcdStore) -> None:
    """The revision went back: that the mirror shows a higher one does not mean that it is up to date."""
    async with followed(writer, PREFIX) as access:
        for value in range(10):
            assert await access.commit((), (Put(key=KEY, value=b"%d" % value),))
        for _ in range(3):
            etcd.kill()
            etcd.wipe()
            etcd.start()
            etcd.ctl("put", KEY, "theirs")
            await eventually(partial(heard, access))
            entry = access.entry(KEY)
            assert entry is not None
            assert entry.value == b"theirs"
            assert await access.commit((access.unchanged(KEY),), (Put(key=KEY, value=b"ours"),))
            assert access.mirror.entries[KEY].value == b"ours"


async def heard(access: StoreAccess) -> bool:
    """Tell whether the store answers; that the claim is lost is sure."""
    try:
        return not await access.commit((Absent(key=KEY),), (Put(key=KEY, value=b"never"),))
    except Unavailable:
        return False


async def test_watch_goes_on_after_a_transaction_of_puts_and_deletes(
    writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy
) -> None:
    """What changed last are several keys, one of them gone: still the history that was given."""
    watch = watcher.watch(PREFIX)
    await next_of(watch)
    last = (Put(key=f"{PREFIX}a", value=b"1"), Put(key=f"{PREFIX}c", value=b""), Delete(key=f"{PREFIX}b"))
    for writes in ((Put(key=f"{PREFIX}b", value=b""),), last, (Delete(key=f"{PREFIX}c"),)):
        await writer.transact([], writes)
        assert isinstance(await next_of(watch), Changes)
        proxy.drop_connections()
        await write(writer, 7)
        assert await values_until(watch, 7) == [7]


async def test_watch_lists_anew_when_the_lease_is_lost(etcd: EtcdServer, writer: EtcdStore) -> None:
    """For a store that does not know our lease may be another one, whatever else it says."""
    await write(writer, 1)
    watch = writer.watch(PREFIX)
    await next_of(watch)
    for lease in etcd.ctl("lease", "list").splitlines()[1:]:
        etcd.ctl("lease", "revoke", lease)
    await write(writer, 2)
    async with asyncio.timeout(30):
        while not isinstance(event := await anext(watch), Relisted):
            pass
    assert event.why is Doubt.LEASE


async def test_watch_notices_a_server_that_went_silent(
    writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.store.etcd.watch.QUIET_S", 0.3)
    monkeypatch.setattr("netagent.store.etcd.watch.ANSWER_S", 0.3)
    watch = watcher.watch(PREFIX)
    await next_of(watch)
    await write(writer, 4)
    assert await values_until(watch, 4) == [4]
    pending = asyncio.ensure_future(values_until(watch, 5))
    await asyncio.sleep(0)
    proxy.black_hole = True
    await write(writer, 5)
    await asyncio.sleep(1.0)
    proxy.black_hole = False
    assert await asyncio.wait_for(pending, 30) == [5]


async def test_quiet_watch_is_probed_and_stays(
    writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.store.etcd.watch.QUIET_S", 0.1)
    answers = 0
    read = WatchStream.read

    async def counted(stream: WatchStream, *, within: float) -> pb.WatchResponse | None:
        nonlocal answers
        response = await read(stream, within=within)
        answers += within == ANSWER_S and response is not None
        return response

    async def has_answered() -> bool:
        return answers >= 5

    monkeypatch.setattr(WatchStream, "read", counted)
    watch = watcher.watch(PREFIX)
    await next_of(watch)
    pending = asyncio.ensure_future(values_until(watch, 1))
    await eventually(has_answered)
    await write(writer, 1)
    assert await pending == [1]
    assert watcher.statistics.silent_s is not None
    assert proxy.accepted == 2, "one connection for calls and one for the watch"


async def test_watch_lists_anew_from_time_to_time(
    etcd: EtcdServer, writer: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.store.etcd.watch.RELIST_S", 0.5)
    monkeypatch.setattr("netagent.store.etcd.watch.QUIET_S", 0.1)
    watch = writer.watch(PREFIX)
    for why in (Doubt.START, Doubt.DUE):
        event = await next_of(watch)
        assert isinstance(event, Relisted)
        assert event.why is why


async def test_large_transaction_cut_into_fragments_comes_in_one_piece(writer: EtcdStore) -> None:
    watch = writer.watch(PREFIX)
    await next_of(watch)
    await write(writer, 0)
    await values_until(watch, 0)
    value = bytes(12_000)
    revision = await writer.transact([], [Put(key=f"{PREFIX}{number}", value=value) for number in range(100)])
    event = await next_of(watch)
    assert isinstance(event, Changes)
    assert event.revision == revision
    assert len(event.changes) == 100


async def test_backlog_larger_than_a_message_is_delivered_whole(
    writer: EtcdStore, watcher: EtcdStore, proxy: TcpProxy
) -> None:
    watch = watcher.watch(PREFIX)
    await next_of(watch)
    proxy.black_hole = True
    expected = {}
    for number in range(6):
        puts = [Put(key=f"{PREFIX}{number}/{part}", value=bytes(12_000)) for part in range(100)]
        expected[await writer.transact([], puts)] = 100
    proxy.black_hole = False
    proxy.drop_connections()
    told: dict[int, int] = {}
    while sum(told.values()) < 600:
        event = await next_of(watch)
        assert isinstance(event, Changes)
        revisions = [change.revision for change in event.changes]
        assert not told.keys() & set(revisions)
        told |= {revision: revisions.count(revision) for revision in revisions}
    assert told == expected


async def test_cancelled_reader_of_a_watch_leaves_the_store_usable(writer: EtcdStore) -> None:
    watch = writer.watch(PREFIX)
    await next_of(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    other = writer.watch(PREFIX)
    assert isinstance(await next_of(other), Relisted)
