"""Networks that the dockerds of several hosts share: who makes them, who removes them, and who comes in between."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from netagent.model.ids import EndpointId
from netagent.model.network import NetworkState
from netagent.runtime.dockerd import Dockerd
from netagent.services.docker_endpoints import DockerEndpoints
from netagent.services.docker_networks import DockerNetworks, NewDockerNetwork
from netagent.services.docker_shares import ORIGIN_LABEL
from netagent.store.memory import MemoryStore
from tests.support.agent import Agent
from tests.unit.services.conftest import StartAgent

SUBNET = "10.66.0.0/16"
ONES, TWOS = "1" * 64, "2" * 64


@pytest.fixture
async def pair(start_agent: StartAgent, cluster: MemoryStore) -> tuple[Agent, Agent]:
    """Two hosts of one cluster."""
    return await start_agent(1, cluster=cluster), await start_agent(2, cluster=cluster)


def docker(agent: Agent) -> DockerNetworks:
    return DockerNetworks(agent.context, agent.networks, agent.network_removal, Dockerd("/nonexistent"))


def asked(identity: str, **fields: Any) -> NewDockerNetwork:
    return NewDockerNetwork(id=identity, digest="", subnets=((SUBNET, "10.66.0.1/16"),), **fields)


async def test_the_last_host_that_leaves_removes_the_network(pair: tuple[Agent, Agent]) -> None:
    one, two = (docker(agent) for agent in pair)
    made = await one.create(asked(ONES))
    assert (await two.create(asked(TWOS))).id == made.id
    await one.delete(ONES)
    assert pair[0].networks.find(made.id).labels[ORIGIN_LABEL] == pair[1].host.id
    await two.delete(TWOS)
    assert made.id not in pair[0].context.snapshot().networks


async def test_a_network_that_is_joined_while_its_last_user_removes_it_stays(
    pair: tuple[Agent, Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other host joins between the note that nobody has the network and the mark that it is deleted."""
    one, two = (docker(agent) for agent in pair)
    made = await one.create(asked(ONES))
    remove = pair[0].network_removal.remove

    async def late(name: str, **options: Any) -> AsyncIterator[tuple[str, ...]]:
        await two.create(asked(TWOS))
        async for waiting in remove(name, **options):
            yield waiting

    monkeypatch.setattr(pair[0].network_removal, "remove", late)
    await one.delete(ONES)
    kept = pair[1].networks.find(made.id)
    assert (kept.state, kept.labels[ORIGIN_LABEL]) == (NetworkState.ACTIVE, pair[1].host.id)
    assert two.find(TWOS).id == made.id


async def test_a_network_that_is_going_is_waited_for_and_made_anew(pair: tuple[Agent, Agent]) -> None:
    one, two = (docker(agent) for agent in pair)
    made = await one.create(asked(ONES))
    steps = pair[0].network_removal.remove(made.name)
    await pair[1].blocks.ensure(made)
    assert await anext(steps), "the other host holds a block"
    creating = asyncio.ensure_future(two.create(asked(TWOS)))
    async for _ in steps:
        pass
    again = await creating
    assert again.id != made.id
    assert two.find(TWOS).id == again.id


async def test_hosts_that_make_and_remove_the_same_network_all_the_time_always_have_it_in_between(
    pair: tuple[Agent, Agent],
) -> None:
    async def churn(networks: DockerNetworks, letter: str) -> None:
        for number in range(8):
            identity = f"{letter}{number:063x}"
            network = await networks.create(asked(identity))
            assert networks.find(identity).state is NetworkState.ACTIVE, network.name
            await networks.delete(identity)

    one, two = pair
    await asyncio.gather(churn(docker(one), "a"), churn(docker(two), "b"))
    assert all(SUBNET not in {str(s.prefix) for s in n.subnets} for n in one.networks.list())


async def test_a_sandbox_gets_its_networks_routes_and_no_default_route_where_it_has_none(agent: Agent) -> None:
    networks = docker(agent)
    routes = "172.16.0.0/12,10.66.0.2;172.32.0.0/16,10.66.0.3"
    await networks.create(asked(ONES, options={"routes": routes, "no_default_route": "true"}))
    endpoints = DockerEndpoints(agent.context, networks, agent.endpoints, agent.blocks, agent.ports)
    endpoint = EndpointId("e" * 64)
    await endpoints.create(ONES, endpoint, (), None)
    joined = await endpoints.join(ONES, endpoint, "/var/run/docker/netns/0123456789ab")
    assert joined.gateways == ()
    assert joined.routes == (("172.16.0.0/12", "10.66.0.2"), ("172.32.0.0/16", "10.66.0.3"))
