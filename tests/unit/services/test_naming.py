"""What the DNS process is told, and when: a real agent's services, a process that only listens."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from typing import cast

import pytest

from netagent.dns.client import NameServer, Scope
from netagent.dns.control import NameRecord
from netagent.errors import Unavailable
from netagent.model.container import Container, ContainerKind
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.ids import ContainerId, EndpointId
from netagent.model.network import Network
from netagent.model.resolver import Link, Resolver
from netagent.reconcile.ports import Delete, Put
from netagent.services import naming
from netagent.services.naming import GRACE_S, NamingService, render_name
from netagent.store import keys
from netagent.store.memory import MemoryStore
from netagent.store.records import encode_block
from tests.support.agent import Agent, settled
from tests.support.world import H2, an_overlay
from tests.unit.services.conftest import StartAgent


class Listening:
    """Notes what it is told; ``deaf`` for as many times as it does not answer."""

    def __init__(self) -> None:
        self.told: list[tuple[Collection[str] | None, dict[str, NameRecord]]] = []
        self.deaf = 0
        self._lost = asyncio.Event()

    async def lost(self) -> None:
        await self._lost.wait()

    async def tell(
        self,
        scope: Scope,
        names: Mapping[str, NameRecord],
        *,
        changed: Collection[str] | None = None,
        complete: bool = True,
    ) -> None:
        if self.deaf:
            self.deaf -= 1
            raise Unavailable("the DNS process does not answer")
        self.told.append((changed, dict(names)))

    def close(self) -> None:
        return

    @property
    def server(self) -> NameServer:
        return cast("NameServer", self)


def an_endpoint(network: Network, name: str = "web") -> Endpoint:
    return Endpoint(
        id=EndpointId(name.encode().hex().ljust(64, "0")),
        network_id=network.id,
        container_id=ContainerId("c0ffee".ljust(64, "0")),
        container_name=name,
        interface="eth0",
        sandbox="/run/netns/x",
        addresses=(EndpointAddress(address=network.subnets[0].gateway + 4),),
        mac="02:00:00:00:00:01",
        aliases=("www",),
        hostname="front",
        state=EndpointState.ATTACHED,
    )


def test_an_endpoint_is_known_by_all_its_names_once() -> None:
    network = an_overlay()
    record = render_name(an_endpoint(network), network)
    assert record.names == ("web", "www", "c0ffee000000", "front")
    assert (record.title, record.here) == ("web", False)


def test_a_container_here_has_its_links_and_nameservers_with_it() -> None:
    network = an_overlay()
    container = Container(
        id=ContainerId("c0ffee".ljust(64, "0")),
        name="web",
        kind=ContainerKind.RUN,
        links=(Link(target="db", alias="store"),),
        resolver=Resolver(nameservers=("192.0.2.53",)),
    )
    record = render_name(an_endpoint(network), network, container)
    assert (record.links, record.servers, record.here) == ((("store", "db"),), ("192.0.2.53",), True)


class Told:
    """A naming service of one agent with a clock of its own, and what its process was told."""

    def __init__(self, agent: Agent) -> None:
        self.now_s = 0.0
        self.process = Listening()
        self.service = NamingService(
            agent.knowledge, agent.stores, agent.journal, self.process.server, clock=lambda: self.now_s
        )
        for access in agent.stores.all:
            access.subscribe(self.service.request_stored)

    @property
    def names(self) -> set[str]:
        _, names = self.process.told[-1]
        return {record.title for record in names.values()}

    async def all_told(self) -> None:
        """Wait until everything that is known was told."""
        await settled()
        await self.service.published()


@pytest.fixture
async def told(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Told]:
    """The names that the agent of host 1 tells, which is in ``staticnet``; nobody runs out of patience."""
    monkeypatch.setattr(naming, "PATIENCE_S", 30)
    await agent.create_network()
    told = Told(agent)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(told.service.run())
        await agent.attach("first", "staticnet")
        await told.all_told()
        yield told
        running.cancel()


async def test_an_attach_tells_of_its_own_endpoint_alone_and_a_detach_takes_it_back(agent: Agent, told: Told) -> None:
    await agent.attach("second", "staticnet")
    await told.all_told()
    endpoint = await agent.attach("web", "staticnet")
    await told.service.published((endpoint.id,))
    changed, names = told.process.told[-1]
    assert changed is not None
    assert set(changed) >= {endpoint.id}
    assert names[endpoint.id].addresses == (str(endpoint.address_of(4)),)
    await agent.attachments.detach("web")
    await told.service.published((endpoint.id,))
    assert told.names == {"first", "second"}


async def test_names_of_another_host_come_go_and_outlive_its_lease_for_a_while(
    told: Told, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    other = await start_agent(2, cluster=cluster)
    await settled()
    await other.attach("far", "staticnet")
    await told.all_told()
    assert told.names == {"first", "far"}
    await other.attachments.detach("far")
    await told.all_told()
    assert told.names == {"first"}
    await other.attach("far", "staticnet")
    await settled()
    await other.stop()
    await cluster.transact([], [Delete(key=keys.live_key(other.host.id))])
    await told.all_told()
    assert told.names == {"first", "far"}, "its agent may only be restarting"
    told.now_s += GRACE_S + 1
    told.service.request_stored(frozenset({keys.live_key(other.host.id)}))
    await told.all_told()
    assert told.names == {"first"}


async def test_an_address_that_another_host_takes_over_has_no_name_here_any_more(
    agent: Agent, told: Told, cluster: MemoryStore
) -> None:
    endpoint = await agent.attach("web", "staticnet")
    await told.all_told()
    assert told.names == {"first", "web"}
    network = next(n for n in agent.context.snapshot().networks.values() if n.name == "staticnet")
    block = agent.context.snapshot().own_blocks_in(network.id)[0]
    assert endpoint.addresses[0].address in block.prefix
    key = keys.block_key(network.id, block.prefix)
    await cluster.transact([], [Put(key=key, value=encode_block(replace(block, owner=H2, epoch=block.epoch + 1)))])
    await told.all_told()
    assert told.names == set()


async def test_nobody_waits_long_for_a_process_that_does_not_answer_and_it_is_told_all_later(
    agent: Agent, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "FIRST_RETRY_S", 0.01)
    told.process.deaf = 2
    endpoint = await agent.attach("web", "staticnet")
    async with asyncio.timeout(30):
        await told.service.published((endpoint.id,))
        while "web" not in told.names:
            await asyncio.sleep(0.01)
    changed, _ = told.process.told[-1]
    assert changed is None
