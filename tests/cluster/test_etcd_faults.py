"""Faults of a real etcd and of the wire to it: full, late, and closed on one side only."""

import asyncio
import time
from pathlib import Path

import pytest

from netagent.errors import Exhausted, Unavailable
from netagent.reconcile.ports import Absent, Put
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.store import EtcdStore
from tests.support.etcd import etcd_server
from tests.support.eventually import eventually
from tests.support.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.cluster

A, B = "/netagent/v1/a", "/netagent/v1/b"
MIB = 1024 * 1024


async def fill(store: EtcdStore) -> None:
    for _ in range(40):
        await store.transact([], [Put(key=A, value=bytes(MIB))])


async def test_a_full_etcd_says_what_to_do_is_read_all_the_same_and_recovers(tmp_path: Path) -> None:
    with etcd_server(tmp_path, quota_bytes=16 * MIB) as server:
        store = EtcdStore(parse_access(server.url))
        try:
            await store.transact([], [Put(key=B, value=b"kept")])
            with pytest.raises(Exhausted, match="etcd is full") as caught:
                await fill(store)
            assert "alarm disarm" in (caught.value.hint or "")
            entry = await store.get(B)
            assert entry is not None
            assert entry.value == b"kept"
            assert (await store.list("/netagent/v1/")).entries
            listing = await store.list(A)
            server.ctl("compact", str(listing.revision))
            server.ctl("defrag")
            server.ctl("alarm", "disarm")
            assert await store.transact([Absent(key="/netagent/v1/c")], [Put(key="/netagent/v1/c", value=b"")])
        finally:
            await store.close()


async def test_late_replies_are_waited_for_and_nothing_is_written_twice(tmp_path: Path) -> None:
    with etcd_server(tmp_path) as server:
        async with tcp_proxy(server.client_port) as proxy:
            store = EtcdStore(parse_access(f"etcd://127.0.0.1:{proxy.port}"))
            try:
                await store.get(A)
                proxy.delay_s = 0.5
                started = time.monotonic()
                assert await store.transact([Absent(key=A)], [Put(key=A, value=b"1")])
                assert await store.transact([Absent(key=A)], [Put(key=A, value=b"2")]) is None
                assert time.monotonic() - started >= 1
                proxy.delay_s = 0
                entry = await store.get(A)
                assert entry is not None
                assert entry.value == b"1"
            finally:
                await store.close()


async def test_a_connection_that_the_server_closed_on_its_side_is_replaced(tmp_path: Path) -> None:
    with etcd_server(tmp_path) as server:
        async with tcp_proxy(server.client_port) as proxy:
            store = EtcdStore(parse_access(f"etcd://127.0.0.1:{proxy.port}"))

            async def answers() -> bool:
                try:
                    return await store.get(A) is None
                except Unavailable:
                    return False

            try:
                watch = store.watch("/netagent/v1/")
                await anext(watch)
                before = proxy.accepted
                proxy.half_close()
                proxy.swallow_replies = False
                await eventually(answers)
                assert proxy.accepted > before
                assert await store.transact([], [Put(key=B, value=b"1")])
                async with asyncio.timeout(30):
                    await anext(watch)
            finally:
                await store.close()
