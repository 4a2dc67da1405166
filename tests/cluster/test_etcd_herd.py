"""Two hundred agents' stores on one etcd that goes away and comes back: all are current soon, and not all at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from netagent.errors import NetagentError
from netagent.reconcile.ports import Listing, Put, Relisted
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.client import EtcdClient
from netagent.store.etcd.store import EtcdStore
from netagent.store.etcd.watch import list_prefix
from tests.support.etcd import EtcdServer, etcd_server
from tests.support.eventually import eventually

pytestmark = pytest.mark.cluster

PREFIX = "/netagent/v1/"
NEWS = f"{PREFIX}later/news"
AGENTS, RECORDS, SPREAD_S, WITHIN_S = 200, 100, 2.0, 15.0


class Agent:
    """The part of an agent that the store sees: a watch of everything, and a key that says it lives."""

    def __init__(self, url: str, number: int) -> None:
        self._store = EtcdStore(parse_access(url))
        self._live = Put(key=f"{PREFIX}live/{number}", value=b"", leased=True)
        self._following = asyncio.create_task(self._follow())
        self._living = asyncio.create_task(self._say_it_lives())
        self._is_due = asyncio.Event()
        self._is_due.set()
        self._store.on_lease_replaced(self._is_due.set)
        self.news: bytes | None = None

    async def _follow(self) -> None:
        async for event in self._store.watch(PREFIX):
            items = event.listing.entries if isinstance(event, Relisted) else event.changes
            for item in items:
                if item.key == NEWS:
                    self.news = item.value

    async def _say_it_lives(self) -> None:
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            try:
                await self._store.transact([], [self._live])
            except NetagentError:
                await asyncio.sleep(0.5)
                self._is_due.set()

    async def close(self) -> None:
        for task in (self._following, self._living):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._store.close()


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EtcdServer]:
    """One with as many records as let agents wait up to ``SPREAD_S``, and a backup without what comes later."""
    with etcd_server(tmp_path) as server:
        store = EtcdStore(parse_access(server.url))
        await store.transact([], [Put(key=f"{PREFIX}later/{number}", value=b"") for number in range(RECORDS)])
        await store.close()
        server.stop()
        server.save()
        server.start()
        yield server


@pytest.fixture
def listed_at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When agents asked for listings."""
    times: list[float] = []

    async def noted(client: EtcdClient, prefix: str) -> Listing:
        times.append(time.monotonic())
        return await list_prefix(client, prefix)

    monkeypatch.setattr("netagent.store.etcd.watch.list_prefix", noted)
    monkeypatch.setattr("netagent.store.etcd.watch.LISTED_PER_S", RECORDS / SPREAD_S)
    return times


@pytest.fixture
async def agents(etcd: EtcdServer, listed_at: list[float]) -> AsyncIterator[list[Agent]]:
    agents = [Agent(etcd.url, number) for number in range(AGENTS)]
    await hear(etcd, agents, "0")
    yield agents
    await asyncio.gather(*(agent.close() for agent in agents))


async def hear(etcd: EtcdServer, agents: list[Agent], news: str) -> None:
    """See that every agent hears ``news`` and is known to live, in time."""
    etcd.ctl("put", NEWS, news)

    async def are_current() -> bool:
        return all(agent.news == news.encode() for agent in agents) and count_live(etcd) == AGENTS

    await eventually(are_current, within=WITHIN_S, every=0.1)


def count_live(etcd: EtcdServer) -> int:
    return len(etcd.ctl("get", "--prefix", "--keys-only", f"{PREFIX}live/").split())


async def test_an_etcd_that_was_away_is_not_overrun(
    etcd: EtcdServer, agents: list[Agent], listed_at: list[float]
) -> None:
    """After a restart nobody lists at all; after a restore, when all must and all leases are new, in turns."""
    listed_at.clear()
    etcd.kill()
    etcd.start()
    await hear(etcd, agents, "1")
    assert not listed_at
    etcd.kill()
    etcd.restore()
    etcd.start()
    await hear(etcd, agents, "2")
    assert AGENTS <= len(listed_at) <= 2 * AGENTS
    most = max(sum(first <= at < first + SPREAD_S / 8 for at in listed_at) for first in listed_at)
    assert most < len(listed_at) / 3
