"""Two hundred agents' stores on one etcd that goes away and comes back: all are current soon, and not all at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from netagent.errors import NetagentError
from netagent.reconcile.ports import Listing, Put, Relisted
from netagent.store.etcd import watch as etcd_watch
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.client import EtcdClient
from netagent.store.etcd.store import EtcdStore
from netagent.store.etcd.watch import EtcdWatch, list_prefix
from tests.support.etcd import EtcdServer, etcd_server
from tests.support.eventually import eventually

pytestmark = pytest.mark.cluster

PREFIX = "/netagent/v1/"
NEWS = f"{PREFIX}later/news"
AGENTS, RECORDS, SPREAD_S, WITHIN_S = 200, 100, 2.0, 60.0


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


@dataclass
class Listings:
    """How often agents asked for a listing, and for how long each chose to wait before."""

    count: int = 0
    waits: list[float] = field(default_factory=list)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> Listings:
    """What agents list, from now on."""
    listings = Listings()

    async def noted(client: EtcdClient, prefix: str) -> Listing:
        listings.count += 1
        return await list_prefix(client, prefix)

    def chosen(low: float, high: float) -> float:
        seconds = between(low, high)
        if low == 0:  # before a listing; a rest is longer
            before_listings.add(seconds)
        return seconds

    async def waited(watch: EtcdWatch, seconds: float) -> None:
        if seconds in before_listings:
            listings.waits.append(seconds)
        await wait(watch, seconds)

    before_listings: set[float] = set()
    between, wait = etcd_watch._between, EtcdWatch._wait
    monkeypatch.setattr(etcd_watch, "list_prefix", noted)
    monkeypatch.setattr(etcd_watch, "LISTED_PER_S", RECORDS / SPREAD_S)
    monkeypatch.setattr(etcd_watch, "_between", chosen)
    monkeypatch.setattr(EtcdWatch, "_wait", waited)
    return listings


@pytest.fixture
async def agents(etcd: EtcdServer, listings: Listings) -> AsyncIterator[list[Agent]]:
    agents = [Agent(etcd.url, number) for number in range(AGENTS)]
    await hear(etcd, agents, "0")
    yield agents
    await asyncio.gather(*(agent.close() for agent in agents))


async def hear(etcd: EtcdServer, agents: list[Agent], news: str) -> None:
    """See that every agent hears ``news`` and is known to live, in time."""
    etcd.ctl("put", NEWS, news)

    async def are_current() -> bool:
        if not all(agent.news == news.encode() for agent in agents):
            return False
        return await asyncio.to_thread(count_live, etcd) == AGENTS

    await eventually(are_current, within=WITHIN_S, every=0.1)


def count_live(etcd: EtcdServer) -> int:
    return len(etcd.ctl("get", "--prefix", "--keys-only", f"{PREFIX}live/").split())


async def test_an_etcd_that_was_away_is_not_overrun(etcd: EtcdServer, agents: list[Agent], listings: Listings) -> None:
    """After a restart hardly anybody lists; after a restore, when all must and all leases are new, in turns."""
    listings.count = 0
    etcd.kill()
    etcd.start()
    await hear(etcd, agents, "1")
    assert listings.count < AGENTS / 4, "but for who was kept from renewing its lease by a busy machine"
    listings.count = 0
    listings.waits.clear()
    etcd.kill()
    etcd.restore()
    etcd.start()
    await hear(etcd, agents, "2")
    assert AGENTS <= listings.count <= 3 * AGENTS
    assert len(listings.waits) >= AGENTS
    most = max(sum(first <= wait < first + SPREAD_S / 8 for wait in listings.waits) for first in listings.waits)
    assert most < len(listings.waits) / 3
