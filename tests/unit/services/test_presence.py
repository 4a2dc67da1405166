"""Who may be a host: an agent's own next life at once, another machine not at all."""

import asyncio
from dataclasses import replace

import pytest

from netagent.errors import Conflict
from netagent.store import keys
from netagent.store.host_records import decode_live
from netagent.store.memory import MemoryStore
from tests.support.agent import Agent, settled
from tests.support.world import H1, a_host
from tests.unit.services.conftest import StartAgent


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.services.presence.PATIENCE_S", 0.02)


def life(agent: Agent) -> str:
    return decode_live(agent.records()[keys.live_key(H1)]).life


async def test_the_next_life_of_a_host_takes_over_from_the_last_one(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    before = life(agent)
    await agent.stop()
    again = await start_agent(cluster=cluster)
    assert life(again) != before


async def test_a_clone_of_a_living_host_is_refused_and_writes_nothing(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    await agent.stop()
    before = (await cluster.list(keys.ROOT)).entries
    with pytest.raises(Conflict, match=r"another machine at 198\.18\.0\.1 is host"):
        await start_agent(cluster=cluster, boot="another")
    assert (await cluster.list(keys.ROOT)).entries == before


async def test_a_host_that_was_rebooted_waits_for_the_lease_of_its_last_life(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.services.presence.PATIENCE_S", 10)
    await agent.stop()
    starting = asyncio.ensure_future(start_agent(cluster=cluster, boot="another"))
    await settled()
    assert not starting.done()
    cluster.expire_lease()
    again = await starting
    assert keys.live_key(H1) in again.records()


async def test_a_host_with_the_underlay_address_of_a_living_one_is_refused(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    with pytest.raises(Conflict, match=r"host h1 .* has this host's underlay address 198\.18\.0\.1"):
        await start_agent(2, cluster=cluster, host=replace(a_host(2), underlay=agent.host.underlay))


async def test_a_host_with_the_underlay_address_of_one_that_is_gone_is_welcome(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    await agent.stop()
    cluster.expire_lease()
    other = await start_agent(2, cluster=cluster, host=replace(a_host(2), underlay=agent.host.underlay))
    assert other.host.id in other.context.snapshot().live
