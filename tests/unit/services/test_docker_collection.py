"""What dockerd has forgotten is let go of, and never on doubt."""

from ipaddress import ip_address
from typing import cast

import pytest

from netagent.errors import Unavailable
from netagent.model.docker import DockerNetwork
from netagent.model.ids import EndpointId
from netagent.runtime.dockerd import DockerContent, Dockerd
from netagent.services import docker_collection
from netagent.services.docker_collection import DockerCollection
from netagent.services.docker_endpoints import DockerEndpoints
from netagent.services.docker_networks import DockerNetworks, NewDockerNetwork
from netagent.store.memory import MemoryStore
from tests.support.agent import Agent
from tests.unit.services.conftest import StartAgent

NETWORK, ENDPOINT = "a" * 64, EndpointId("b" * 64)
SUBNET, ADDRESS = "10.66.0.0/16", "10.66.0.9"
SANDBOX = "/var/run/docker/netns/0123456789ab"
GRACE_S = 60.0


class FakeDockerd:
    """A dockerd that has ``networks``, or is away."""

    def __init__(self) -> None:
        self.id = "one"
        self.networks: dict[str, DockerContent] = {NETWORK: DockerContent()}
        self.is_away = False

    async def engine(self) -> str:
        return self.id

    async def content(self, network: str) -> DockerContent | None:
        if self.is_away:
            raise Unavailable("dockerd is not there")
        return self.networks.get(network)

    async def has_lost(self, network: DockerNetwork) -> bool:
        return await Dockerd.has_lost(cast("Dockerd", self), network)


class World:
    """An agent with a network of Docker's, its dockerd, and a clock."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.agent = agent
        self.dockerd = FakeDockerd()
        dockerd = cast("Dockerd", self.dockerd)
        self.networks = DockerNetworks(agent.context, agent.networks, agent.network_removal, dockerd)
        self.endpoints = DockerEndpoints(agent.context, self.networks, agent.endpoints, agent.blocks, agent.ports)
        self.collection = DockerCollection(agent.context, self.endpoints, dockerd, grace_s=GRACE_S)
        self.now = 1000.0
        monkeypatch.setattr(docker_collection, "_now", lambda: self.now)

    async def make_network(self, identity: str = NETWORK) -> None:
        await self.networks.request_pool(SUBNET, "", {}, ipv6=False)
        await self.networks.create(NewDockerNetwork(id=identity, digest="", subnets=((SUBNET, ""),)))

    async def hold(self) -> None:
        await self.endpoints.request_address(self.networks.pool(SUBNET), ADDRESS, is_gateway=False)

    async def create(self) -> None:
        await self.endpoints.create(NETWORK, ENDPOINT, [ip_address(ADDRESS)], None)

    async def grace(self) -> None:
        """Let the time of grace go by, with a sweep before and after it."""
        await self.collection.sweep()
        self.now += GRACE_S
        await self.collection.sweep()

    @property
    def held(self) -> list[str]:
        return [str(a.address) for row in self.agent.journal.endpoints.values() for a in row.addresses]


@pytest.fixture
async def world(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(agent, monkeypatch)
    await world.make_network()
    return world


@pytest.mark.parametrize("joined", [False, True], ids=["never-joined", "sandbox-gone"])
async def test_an_endpoint_that_dockerd_does_not_have_goes_after_the_time_of_grace(world: World, joined: bool) -> None:
    await world.create()
    if joined:
        await world.endpoints.join(NETWORK, ENDPOINT, SANDBOX)
        world.agent.kernel.links.pop("naebbbbbbbbbbbb")
    await world.collection.sweep()
    world.now += GRACE_S - 1
    await world.collection.sweep()
    assert world.held
    world.now += 1
    await world.collection.sweep()
    assert not world.held
    assert not world.agent.journal.containers


async def test_an_address_that_was_never_released_goes_too(world: World) -> None:
    await world.hold()
    await world.grace()
    assert not world.held


async def test_what_dockerd_has_stays(world: World) -> None:
    await world.create()
    world.dockerd.networks[NETWORK] = DockerContent(endpoints=frozenset({ENDPOINT}))
    await world.grace()
    world.dockerd.networks[NETWORK] = DockerContent(addresses=frozenset({ip_address(ADDRESS)}))
    await world.grace()
    assert world.held == [ADDRESS]


async def test_an_endpoint_whose_sandbox_lives_stays(world: World) -> None:
    await world.create()
    await world.endpoints.join(NETWORK, ENDPOINT, SANDBOX)
    await world.grace()
    world.dockerd.networks.clear()
    await world.grace()
    assert world.held == [ADDRESS]


async def test_nothing_goes_while_dockerd_is_away_and_the_time_begins_anew(world: World) -> None:
    await world.hold()
    await world.collection.sweep()
    world.dockerd.is_away = True
    world.now += GRACE_S
    await world.collection.sweep()
    world.dockerd.is_away = False
    await world.collection.sweep()
    assert world.held == [ADDRESS]


async def test_what_changes_meanwhile_begins_its_time_anew(world: World) -> None:
    await world.hold()
    await world.collection.sweep()
    world.now += GRACE_S
    world.endpoints.release_address(world.networks.pool(SUBNET), ADDRESS)
    await world.hold()
    await world.collection.sweep()
    assert world.held == [ADDRESS]


async def test_a_network_that_dockerd_was_seen_to_have_is_lost_if_it_has_it_no_more(world: World) -> None:
    await world.hold()
    await world.collection.sweep()
    world.dockerd.networks.clear()
    await world.grace()
    assert not world.held


@pytest.mark.parametrize("seen", [False, True], ids=["never-seen", "another-dockerd"])
async def test_a_network_that_may_be_another_dockerds_is_not_lost(world: World, seen: bool) -> None:
    await world.hold()
    if seen:
        await world.collection.sweep()
        world.dockerd.id = "two"
    world.dockerd.networks.clear()
    await world.grace()
    assert world.held == [ADDRESS]


async def test_a_network_that_was_lost_may_be_made_again_and_one_that_was_not_may_not(world: World) -> None:
    await world.collection.sweep()
    with pytest.raises(Exception, match="is used by another network of this dockerd"):
        await world.make_network("c" * 64)
    world.dockerd.networks.clear()
    await world.make_network("d" * 64)
    assert list(world.agent.journal.docker.networks) == ["d" * 64]
    assert world.agent.journal.docker.pools[SUBNET].users == 1


async def test_which_dockerd_has_a_network_is_remembered_over_a_restart(
    world: World, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    await world.collection.sweep()
    await world.agent.stop()
    again = await start_agent(cluster=cluster)
    assert again.journal.docker.networks[NETWORK].engine == "one"
