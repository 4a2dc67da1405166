"""A store as the services use it: they read their own writes, and decide anew on the truth."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from netagent.errors import Unavailable
from netagent.model.network import Scope
from netagent.reconcile.ports import Absent, AbsentBelow, Delete, Doubt, Guard, Put, Write
from netagent.services.tasks import Tasks
from netagent.store import keys
from netagent.store.memory import MemoryStore
from tests.support.agent import Agent
from tests.unit.services.conftest import StartAgent

KEY = keys.ROOT + "later/x"


async def test_what_was_committed_is_in_the_mirror_when_the_commit_returns(agent: Agent) -> None:
    access = agent.stores.cluster
    assert await access.commit((Absent(key=KEY),), (Put(key=KEY, value=b"1"),))
    entry = access.entry(KEY)
    assert entry is not None
    assert entry.value == b"1"


async def test_after_a_lost_race_the_mirror_shows_who_won(agent: Agent, cluster: MemoryStore) -> None:
    access = agent.stores.cluster
    await cluster.transact([], [Put(key=KEY, value=b"theirs")])
    assert access.entry(KEY) is None
    assert not await access.commit((Absent(key=KEY),), (Put(key=KEY, value=b"ours"),))
    entry = access.entry(KEY)
    assert entry is not None
    assert entry.value == b"theirs"


class SharedStore(MemoryStore):
    """One in which another program writes after every change of ours, and of which nothing is doubted."""

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int | None:
        revision = await super().transact(guards, writes)
        await super().transact([], [Put(key="/service/leader", value=b"somebody else's")])
        return revision

    def doubt(self, why: Doubt, reason: str) -> bool:
        raise AssertionError(reason)


async def test_a_race_is_lost_no_slower_in_a_store_that_others_write_to_as_well(start_agent: StartAgent) -> None:
    shared = SharedStore()
    agent = await start_agent(cluster=shared)
    access = agent.stores.cluster
    await access.commit((), (Put(key=KEY + "1", value=b"ours"),))
    await shared.transact([], [Put(key=KEY, value=b"theirs"), Delete(key=KEY + "1")])
    assert not await access.commit((Absent(key=KEY), AbsentBelow(prefix=KEY)), (Put(key=KEY, value=b"ours"),))
    entry = access.entry(KEY)
    assert entry is not None
    assert entry.value == b"theirs"
    assert access.entry(KEY + "1") is None


async def test_a_guard_on_what_is_not_known_here_asks_to_try_again(agent: Agent) -> None:
    with pytest.raises(Unavailable, match="is not known here yet"):
        agent.stores.cluster.unchanged(KEY)


async def test_on_a_single_host_both_stores_are_the_same(start_agent: StartAgent) -> None:
    alone = await start_agent()
    assert alone.stores.all == (alone.stores.local,)
    assert alone.stores.for_scope(Scope.GLOBAL) is alone.stores.local


async def test_in_a_cluster_local_networks_have_a_store_of_their_own(agent: Agent) -> None:
    assert len(agent.stores.all) == 2
    assert agent.stores.of(agent.networks.find("bridge")) is agent.stores.local
    assert agent.stores.of(await agent.create_network()) is agent.stores.cluster


async def test_the_agent_knows_how_it_is_doing(agent: Agent, cluster: MemoryStore) -> None:
    await cluster.transact([], [Put(key=keys.network_key("x"), value=b"{")])
    await agent.stores.cluster.catch_up()
    info = agent.info.info()
    assert (info.host, info.store_connected, info.kernel_error) == (agent.host, True, "")
    assert list(info.refused) == [keys.network_key("x")]
    await cluster.disconnect()
    assert not agent.info.info().store_connected


async def test_a_task_that_fails_ends_alone_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("boom")

    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with caplog.at_level(logging.ERROR):
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            tasks.spawn(fail(), name="failing")
            tasks.spawn(wait(), name="waiting")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not ended.is_set()
            tasks.cancel()
    assert ended.is_set()
    assert "task failing failed" in caplog.text
