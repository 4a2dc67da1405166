"""Subnets added to a network in use, and taken away again."""

import asyncio

import pytest

from netagent.errors import Conflict, InvalidRequest, NetagentError, NotFound
from netagent.services.requests import NetworkChange
from netagent.store import keys
from netagent.store.memory import MemoryStore
from tests.support.agent import Agent, settled
from tests.support.world import facts
from tests.unit.services.conftest import StartAgent


@pytest.fixture
async def online(start_agent: StartAgent, cluster: MemoryStore) -> Agent:
    """An agent with a network of its own and one across hosts, the container ``web`` in both."""
    agent = await start_agent(cluster=cluster, facts=facts("10.99.0.0/16"))
    await agent.create_network("app", driver="bridge", subnets=("10.20.0.0/24",))
    await agent.create_network("wide")
    await agent.attach("web", "app")
    await agent.attach("far", "wide")
    await settled()
    return agent


def _addresses(agent: Agent, name: str) -> list[str]:
    (row,) = [e for e in agent.journal.endpoints.values() if e.container_name == name]
    return [str(given.address) for given in row.addresses]


async def test_a_further_family_reaches_containers_when_they_are_connected_the_next_time(online: Agent) -> None:
    before = online.picture().records, dict(online.kernel.links), set(online.kernel.addresses)
    await online.networks.update(NetworkChange(name="app", subnets=("fd00:20::/64",)))
    assert _addresses(online, "web") == ["10.20.0.2"]
    await online.attach("db", "app")
    assert _addresses(online, "db") == ["10.20.0.3", "fd00:20::2"]
    assert not await online.engine.reconcile()
    with pytest.raises(Conflict, match="db has an address in it"):
        await online.networks.update(NetworkChange(name="app", removed_subnets=("fd00:20::/64",)))
    await online.attachments.detach("db")
    await online.networks.update(NetworkChange(name="app", removed_subnets=("fd00:20::/64",)))
    await settled()
    assert not await online.engine.reconcile()
    assert (online.picture().records, online.kernel.links, online.kernel.addresses) == before


async def test_a_subnet_is_exchanged_for_another_one_in_one_command(online: Agent) -> None:
    await online.attachments.detach("web")
    change = NetworkChange(
        name="app", subnets=("10.21.0.0/24",), gateways=("10.21.0.9",), removed_subnets=("10.20.0.0/24",)
    )
    changed = await online.networks.update(change)
    assert [(str(s.prefix), str(s.gateway)) for s in changed.subnets] == [("10.21.0.0/24", "10.21.0.9")]
    await online.attach("web", "app")
    assert _addresses(online, "web") == ["10.21.0.1"]
    assert not await online.engine.reconcile()


async def test_a_subnet_added_to_a_network_across_hosts_gives_blocks_to_both(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    other = await start_agent(2, cluster=cluster)
    await settled()
    await online.networks.update(NetworkChange(name="wide", subnets=("fd00:30::/64",)))
    await settled()
    await other.attach("near", "wide")
    await online.attach("next", "wide")
    assert len(_addresses(other, "near")) == len(_addresses(online, "next")) == 2
    await settled()
    assert not await online.engine.reconcile()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (NetworkChange(name="app", subnets=("192.168.7.0/24",)), Conflict, "subnet 192.168.7.0/24 overlaps with"),
        (NetworkChange(name="app", subnets=("10.20.0.0/25",)), Conflict, "overlaps with 10.20.0.0/24 of network app"),
        (NetworkChange(name="app", subnets=("10.99.1.0/24",)), Conflict, "overlaps with the host's route 10.99.0.0/16"),
        (NetworkChange(name="wide", subnets=("198.18.0.0/24",)), Conflict, "the subnet holds the address 198.18.0.1"),
        (NetworkChange(name="app", subnets=("10.21.0.1/24",)), InvalidRequest, "it should be 10.21.0.0/24"),
        (NetworkChange(name="app", gateways=("10.21.0.1",)), InvalidRequest, "must have a corresponding subnet"),
        (NetworkChange(name="app", removed_subnets=("10.21.0.0/24",)), NotFound, "network app has no subnet 10.21"),
        (NetworkChange(name="app", removed_subnets=("10.20.0.0/24",)), Conflict, "web has an address in it"),
        (NetworkChange(name="wide", removed_subnets=("192.168.0.0/16",)), InvalidRequest, "other hosts may use it"),
        (
            NetworkChange(name="bridge", removed_subnets=("172.16.0.0/24",)),
            InvalidRequest,
            "the last subnet",
        ),
        (NetworkChange(name="host", subnets=("10.21.0.0/24",)), InvalidRequest, "predefined host network"),
    ],
)
async def test_what_cannot_be_changed_is_refused_and_nothing_changes(
    online: Agent, change: NetworkChange, error: type[NetagentError], words: str
) -> None:
    before = online.picture()
    with pytest.raises(error, match=words):
        await online.networks.update(change)
    await settled()
    assert online.picture() == before


async def test_a_subnet_added_on_one_host_and_a_network_made_on_another_never_overlap(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    other = await start_agent(2, cluster=cluster)
    await settled()
    outcomes = await asyncio.gather(
        online.networks.update(NetworkChange(name="wide", subnets=("10.50.0.0/16",))),
        other.create_network("rival", subnets=("10.50.0.0/16",)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Conflict) for outcome in outcomes].count(True) == 1
    prefixes = [str(s.prefix) for n in online.networks.list() for s in n.subnets]
    assert prefixes.count("10.50.0.0/16") == 1 or keys.network_key("rival") not in online.records()
