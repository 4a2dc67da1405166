"""A server that repeats events of a watch, goes back in time, or loses some: what is known here stays right."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import HostId
from netagent.reconcile.ports import Absent, Changes, Delete, Doubt, Put, WatchEvent
from netagent.services.stores import StoreAccess
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.proto import etcd_pb2 as pb
from netagent.store.etcd.store import EtcdStore
from netagent.store.mirror import Mirror
from netagent.store.view import ClusterView
from tests.support.etcd import EtcdServer, etcd_server, followed
from tests.support.watch_proxy import WatchProxy, watch_proxy

pytestmark = pytest.mark.cluster

PREFIX = "/netagent/v1/"
A, B = f"{PREFIX}later/a", f"{PREFIX}later/b"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path) as server:
        yield server


@pytest.fixture
async def proxy(etcd: EtcdServer) -> AsyncIterator[WatchProxy]:
    async with watch_proxy(etcd.client_port) as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: WatchProxy) -> AsyncIterator[EtcdStore]:
    """A store whose calls and watches go through ``proxy``."""
    store = EtcdStore(parse_access(f"etcd://127.0.0.1:{proxy.port}"))
    yield store
    await store.close()


@pytest.fixture
async def access(proxy: WatchProxy, store: EtcdStore) -> AsyncIterator[StoreAccess]:
    """The same with its mirror."""
    async with followed(store, PREFIX) as access:
        assert await access.mirror.wait_until(lambda: access.mirror.is_synced, within=30)
        await proxy.created.wait()
        yield access


async def next_of(watch: AsyncIterator[WatchEvent]) -> WatchEvent:
    async with asyncio.timeout(30):
        return await anext(watch)


async def told(watch: AsyncIterator[WatchEvent], last: bytes) -> list[bytes | None]:
    """Return the values that changes told up to ``last``; a listing in between fails the test."""
    values: list[bytes | None] = []
    while last not in values:
        event = await next_of(watch)
        assert isinstance(event, Changes)
        values += [change.value for change in event.changes]
    return values


def without_a(response: pb.WatchResponse) -> Iterable[pb.WatchResponse]:
    """Tell nothing of one key."""
    return () if any(event.kv.key == A.encode() for event in response.events) else (response,)


async def shows(access: StoreAccess, key: str, value: bytes | None) -> bool:
    def has() -> bool:
        entry = access.entry(key)
        return (entry.value if entry else None) == value

    return await access.mirror.wait_until(has, within=30)


async def test_what_is_told_again_is_taken_once(proxy: WatchProxy, store: EtcdStore) -> None:
    past: list[pb.WatchResponse] = []

    def again(response: pb.WatchResponse) -> Iterable[pb.WatchResponse]:
        if response.events:
            past.append(response)
            return (*past, response, *past)
        return (response,)

    proxy.tell = again
    watch = store.watch(PREFIX)
    await next_of(watch)
    for number in range(10):
        await store.transact([], [Put(key=A, value=b"%d" % number), Put(key=B, value=b"%d" % number)])
    values = await told(watch, b"9")
    assert values == [b"%d" % (number // 2) for number in range(20)]
    await store.transact([], [Delete(key=A)])
    event = await next_of(watch)
    assert isinstance(event, Changes)
    assert [(change.key, change.value) for change in event.changes] == [(A, None)]


async def test_what_is_older_than_what_is_known_is_not_believed(
    proxy: WatchProxy, access: StoreAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The past comes again: an old value of a key, in a message of its own, and one behind a newer value."""
    # On a busy machine what was written may be told later than a listing anew would wait for.
    monkeypatch.setitem(Mirror.wait_for.__kwdefaults__, "within", 30.0)
    first: list[pb.Event] = []

    def backwards(response: pb.WatchResponse) -> Iterable[pb.WatchResponse]:
        if not response.events:
            return (response,)
        first.extend(response.events)
        later, alone = pb.WatchResponse(), pb.WatchResponse()
        later.CopyFrom(response)
        later.events.extend(first[:1])
        alone.CopyFrom(response)
        del alone.events[:]
        alone.header.revision = first[0].kv.mod_revision
        alone.events.extend(first[:1])
        return (later, alone)

    proxy.tell = backwards
    known = access.mirror.listings.total()
    for number in range(5):
        assert await access.commit((), (Put(key=A, value=b"%d" % number),))
        assert await shows(access, A, b"%d" % number)
    assert await access.commit((), (Put(key=B, value=b""),))
    assert await shows(access, A, b"4")
    assert access.mirror.listings.total() == known


async def test_what_comes_in_the_wrong_order_is_listed_anew(
    etcd: EtcdServer, proxy: WatchProxy, access: StoreAccess
) -> None:
    """Of two changes that are new the older one is told last: nobody knows what else is wrong."""
    kept: list[pb.WatchResponse] = []

    def swapped(response: pb.WatchResponse) -> Iterable[pb.WatchResponse]:
        if not response.events:
            return (response,)
        kept.append(response)
        if len(kept) != 2:
            return ()
        events = [*kept[1].events, *kept[0].events]
        del kept[1].events[:]
        kept[1].events.extend(events)
        return (kept[1],)

    proxy.tell = swapped
    known = access.mirror.listings.total()
    for number in (1, 2):
        etcd.ctl("put", A, str(number))
    assert await access.mirror.wait_until(lambda: access.mirror.listings.total() > known, within=30)
    assert await shows(access, A, b"2")
    assert access.mirror.listings[Doubt.DISORDER] == 1


async def test_what_was_never_told_is_found_by_comparing(
    etcd: EtcdServer, proxy: WatchProxy, monkeypatch: pytest.MonkeyPatch, store: EtcdStore
) -> None:
    monkeypatch.setattr("netagent.store.etcd.watch.RELIST_S", 0.5)
    monkeypatch.setattr("netagent.store.etcd.watch.QUIET_S", 0.1)
    access = StoreAccess(store, Mirror(store, PREFIX), ClusterView(HostId("h1"), Endpoints))
    proxy.tell = lambda response: () if response.events else (response,)
    following = asyncio.create_task(access.mirror.run())
    assert await access.mirror.wait_until(lambda: access.mirror.is_synced, within=30)
    await proxy.created.wait()
    etcd.ctl("put", A, "lost")
    assert await shows(access, A, b"lost")
    assert set(access.mirror.listings) == {Doubt.START, Doubt.DUE}
    etcd.ctl("del", A)
    assert await shows(access, A, None)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def test_a_refusal_that_nothing_known_explains_is_looked_into_at_once(
    etcd: EtcdServer, proxy: WatchProxy, access: StoreAccess
) -> None:
    """A claim that another host holds, by an event that was lost: the next decision is made on the truth."""

    proxy.tell = without_a
    etcd.ctl("put", A, "theirs")
    assert await access.commit((), (Put(key=B, value=b""),))
    assert access.entry(A) is None
    assert not await access.commit((Absent(key=A),), (Put(key=A, value=b"ours"),))
    entry = access.entry(A)
    assert entry is not None
    assert entry.value == b"theirs"


async def test_what_was_passed_over_is_counted(
    etcd: EtcdServer, proxy: WatchProxy, store: EtcdStore, access: StoreAccess
) -> None:
    proxy.tell = without_a
    etcd.ctl("put", A, "lost")
    etcd.ctl("put", B, "told")
    assert await shows(access, B, b"told")
    assert (access.entry(A), access.mirror.missed) == (None, 0)
    store.doubt(Doubt.ASKED, "a test asks")
    assert await shows(access, A, b"lost")
    assert (access.mirror.missed, access.mirror.listings[Doubt.ASKED]) == (1, 1)


async def test_what_other_programs_write_is_not_waited_for_when_a_race_was_lost(
    etcd: EtcdServer, access: StoreAccess
) -> None:
    assert await access.commit((), (Put(key=B, value=b""),))
    known = access.mirror.listings.total()
    etcd.ctl("put", A, "theirs")
    etcd.ctl("put", "/service/leader", "another program's")
    assert not await access.commit((Absent(key=A),), (Put(key=A, value=b"ours"),))
    entry = access.entry(A)
    assert entry is not None
    assert entry.value == b"theirs"
    assert access.mirror.listings.total() == known


async def test_progress_that_runs_ahead_of_events_is_not_believed(proxy: WatchProxy, store: EtcdStore) -> None:
    """etcd #15220: the answer to a progress request overtakes events, and then the connection breaks."""
    breaks: list[int] = []

    def ahead(response: pb.WatchResponse) -> Iterable[pb.WatchResponse]:
        if not response.events or breaks:
            yield response
            return
        breaks.append(1)
        yield pb.WatchResponse(header=response.header, watch_id=-1)
        raise ConnectionError("the watch breaks")

    proxy.tell = ahead
    watch = store.watch(PREFIX)
    await next_of(watch)
    await store.transact([], [Put(key=A, value=b"1")])
    assert await told(watch, b"1") == [b"1"]
    assert proxy.streams == 2
