"""The lease at a real etcd: what hangs on it lives as long as the agent, and comes back after it was lost."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from netagent.errors import Unavailable
from netagent.reconcile.ports import Put, StoreEntry
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.store import EtcdStore
from tests.support.etcd import EtcdServer, etcd_server
from tests.support.eventually import eventually
from tests.support.stopwatch import running_time
from tests.support.tcp_proxy import tcp_proxy

pytestmark = pytest.mark.cluster

LIVE = "/netagent/v1/live/h1"
TTL_S = 2.0
ATTEMPTS = 8
"""What becomes of a lease says nothing where the machine stands still for longer than it lasts: it is tried again."""


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path) as server:
        yield server


@pytest.fixture
async def other(etcd: EtcdServer) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(parse_access(etcd.url))
    yield store
    await store.close()


class Agent:
    """Keeps its live key in the store as the agent does."""

    def __init__(self, url: str) -> None:
        self.store = EtcdStore(parse_access(url), lease_ttl_s=TTL_S)
        self.replaced = 0
        self.store.on_lease_replaced(self._replaced)
        self._tasks: set[asyncio.Task[int | None]] = set()

    async def announce(self) -> int | None:
        return await self.store.transact([], [Put(key=LIVE, value=b"here", leased=True)])

    def _replaced(self) -> None:
        self.replaced += 1
        self._tasks.add(asyncio.ensure_future(self.announce()))


@pytest.fixture
async def agent(etcd: EtcdServer) -> AsyncIterator[Agent]:
    agent = Agent(etcd.url)
    yield agent
    await agent.store.close()


def revoke_all(etcd: EtcdServer) -> None:
    for lease in etcd.ctl("lease", "list").splitlines()[1:]:
        with suppress(subprocess.CalledProcessError):  # it has just ended by itself
            etcd.ctl("lease", "revoke", lease)


async def look(store: EtcdStore, *, since: float, for_s: float) -> tuple[StoreEntry | None, bool]:
    """Look at the live key until ``for_s`` seconds after ``since``; return what was there last, and whether it counts.

    It does not if this process or etcd stood still meanwhile for as long as a renewal of the lease may be late.
    """
    entry, counts, before = None, True, since
    while before < since + for_s:
        await asyncio.sleep(0.05)
        try:
            entry = await store.get(LIVE)
        except Unavailable:
            entry = None
        before, longest = time.monotonic(), before + TTL_S / 3
        counts = counts and before < longest
    return entry, counts


async def stays(store: EtcdStore) -> bool:
    """Tell whether the live key is the same for twice the time to live."""
    for _ in range(ATTEMPTS):
        since = time.monotonic()
        first = await eventually(lambda: store.get(LIVE))
        last, counts = await look(store, since=since, for_s=2 * TTL_S)
        if counts:
            return last == first
    return False


async def test_leased_key_outlives_its_time_to_live_while_the_agent_lives(agent: Agent, other: EtcdStore) -> None:
    for _ in range(ATTEMPTS):
        since, replaced = time.monotonic(), agent.replaced
        revision = await agent.announce()
        entry, counts = await look(other, since=since, for_s=2 * TTL_S)
        if counts:
            break
    assert entry is not None
    assert entry.revision == revision
    assert agent.store.is_lease_held
    assert agent.replaced == replaced


async def test_leased_keys_outlive_a_closed_store_until_the_lease_ends_and_others_for_ever(
    etcd: EtcdServer, other: EtcdStore
) -> None:
    for _ in range(ATTEMPTS):
        agent, since = Agent(etcd.url), time.monotonic()
        await agent.announce()
        await agent.store.transact([], [Put(key="/netagent/v1/hosts/h1", value=b"")])
        await agent.store.close()
        entry = await other.get(LIVE)
        if time.monotonic() - since < TTL_S:
            break
    assert entry is not None

    async def is_gone() -> bool:
        return await other.get(LIVE) is None and not (await other.list("/netagent/transactions/")).entries

    await eventually(is_gone)
    assert await other.get("/netagent/v1/hosts/h1") is not None


async def test_leased_key_goes_when_the_agent_does(etcd: EtcdServer, other: EtcdStore) -> None:
    async with tcp_proxy(etcd.client_port) as proxy:
        agent = Agent(f"etcd://127.0.0.1:{proxy.port}")
        await agent.announce()
        proxy.black_hole = True

        async def is_gone() -> bool:
            return await other.get(LIVE) is None

        await eventually(is_gone)
        assert not agent.store.is_lease_held
        await agent.store.close()


async def test_revoked_lease_is_replaced_and_the_agent_told(etcd: EtcdServer, agent: Agent, other: EtcdStore) -> None:
    revision = await agent.announce()
    assert revision is not None
    revoke_all(etcd)

    async def is_there_anew() -> bool:
        entry = await other.get(LIVE)
        return entry is not None and entry.revision > revision

    await eventually(is_there_anew)
    assert agent.replaced
    assert await stays(other)


async def test_transaction_meets_a_revoked_lease_and_gets_a_new_one(etcd: EtcdServer, agent: Agent) -> None:
    await agent.announce()
    revoke_all(etcd)
    assert await agent.store.transact([], [Put(key="/netagent/v1/a", value=b"")]) is not None
    assert agent.replaced
    assert await eventually(lambda: agent.store.get(LIVE))


async def test_leased_key_is_there_again_after_etcd_was_frozen_beyond_the_lease(
    etcd: EtcdServer, agent: Agent, other: EtcdStore
) -> None:
    await agent.announce()
    etcd.pause()
    await asyncio.sleep(2 * TTL_S)
    assert not agent.store.is_lease_held
    etcd.resume()

    async def is_back() -> bool:
        return agent.store.is_lease_held

    await eventually(is_back)
    assert await stays(other)


async def test_lease_survives_a_restart_of_etcd(etcd: EtcdServer, agent: Agent, other: EtcdStore) -> None:
    for _ in range(ATTEMPTS):
        revision = await agent.announce()
        etcd.kill()
        etcd.start()
        entry, _ = await look(other, since=time.monotonic(), for_s=2 * TTL_S)
        if entry is not None and entry.revision == revision:
            return
    pytest.fail("it never does")


async def test_closing_is_quick_while_etcd_is_away(etcd: EtcdServer, agent: Agent) -> None:
    await agent.announce()
    etcd.pause()
    async with running_time() as elapsed:
        await agent.store.close()
        assert elapsed() < 3
