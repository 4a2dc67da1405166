"""Claims of several hosts in one store: no two ever hold the same, whoever asks when."""

import asyncio
from dataclasses import replace

import pytest

from netagent.errors import Conflict, Exhausted, Unavailable
from netagent.model.address import parse_address
from netagent.model.ids import EndpointId
from netagent.model.network import Network
from netagent.reconcile.ports import Delete
from netagent.store import keys
from netagent.store.memory import MemoryStore
from tests.support.agent import Agent, settled
from tests.support.world import a_host, facts
from tests.unit.services.conftest import StartAgent


@pytest.fixture
async def hosts(start_agent: StartAgent, cluster: MemoryStore) -> tuple[Agent, Agent, Agent]:
    """Three hosts of one cluster, with an overlay on none of them yet."""
    first = await start_agent(1, cluster=cluster)
    await first.create_network()
    return first, await start_agent(2, cluster=cluster), await start_agent(3, cluster=cluster)


def overlay(agent: Agent) -> Network:
    return agent.networks.find("staticnet")


async def claim(agent: Agent, address: str) -> None:
    digit = agent.host.id[-1]
    await agent.blocks.claim_address(overlay(agent), parse_address(address), EndpointId(digit * 64))


async def test_hosts_that_ask_at_once_get_different_blocks(hosts: tuple[Agent, ...]) -> None:
    await asyncio.gather(*(agent.blocks.ensure(overlay(agent)) for agent in hosts))
    await settled()
    for agent in hosts:
        blocks = agent.context.snapshot().blocks_in(overlay(agent).id)
        assert len({b.prefix for b in blocks}) == 3
        assert {b.owner for b in blocks} == {a.host.id for a in hosts}
        assert all(b.own_address == b.prefix[0] for b in blocks)


async def test_a_host_that_holds_a_block_asks_nobody(hosts: tuple[Agent, ...], cluster: MemoryStore) -> None:
    await hosts[0].blocks.ensure(overlay(hosts[0]))
    await cluster.disconnect()
    await hosts[0].blocks.ensure(overlay(hosts[0]))
    with pytest.raises(Unavailable):
        await hosts[1].blocks.ensure(overlay(hosts[1]))


async def test_a_fixed_address_needs_a_block_and_no_room_in_it(start_agent: StartAgent, cluster: MemoryStore) -> None:
    agent = await start_agent(cluster=cluster)
    await agent.create_network("tiny", subnets=("10.73.0.0/29",))
    held = [(await agent.attach(name, "tiny")).addresses for name in ("a", "b")]
    assert len(held) == 2
    with pytest.raises(Exhausted, match="no free block"):
        await agent.attach("c", "tiny")
    given = await agent.attach("d", "tiny", ip="10.73.0.2")
    assert [str(a.address) for a in given.addresses] == ["10.73.0.2"]
    assert len(agent.context.snapshot().own_blocks_in(given.network_id)) == 1


async def test_the_store_holds_one_key_a_block_and_nothing_else_for_routes(
    hosts: tuple[Agent, ...], cluster: MemoryStore
) -> None:
    before = {entry.key for entry in (await cluster.list(keys.ROOT)).entries}
    for agent in hosts:
        await agent.blocks.ensure(overlay(agent))
        await agent.attach(f"on-{agent.host.name}", "staticnet")
    await settled()
    after = {entry.key for entry in (await cluster.list(keys.ROOT)).entries}
    assert {key for key in after - before if not key.startswith(keys.ENDPOINTS)} == {
        keys.block_key(block.network_id, block.prefix) for block in hosts[0].context.snapshot().blocks
    }
    assert len(hosts[0].context.snapshot().blocks) == len(hosts)


async def test_every_subnet_of_a_network_gets_a_block(hosts: tuple[Agent, ...]) -> None:
    network = await hosts[0].create_network("dual", subnets=("10.55.0.0/16", "fd00:55::/64"))
    await hosts[0].blocks.ensure(network)
    held = hosts[0].context.snapshot().own_blocks_in(network.id)
    assert sorted(str(block.prefix) for block in held) == ["10.55.1.0/24", "fd00:55:0:0:1::/80"]


async def test_a_block_is_passed_over_when_a_fixed_address_in_it_was_claimed_first(hosts: tuple[Agent, ...]) -> None:
    first, second, _ = hosts
    # Both decide on what they know now: nothing.
    await asyncio.gather(claim(first, "192.168.1.77"), second.blocks.ensure(overlay(second)))
    held = second.context.snapshot().own_blocks_in(overlay(second).id)
    assert [str(block.prefix) for block in held] not in ([], ["192.168.1.0/24"])


async def test_a_fixed_address_is_lost_when_its_block_was_claimed_first(hosts: tuple[Agent, ...]) -> None:
    first, second, _ = hosts
    results = await asyncio.gather(
        second.blocks.ensure(overlay(second)), claim(first, "192.168.1.77"), return_exceptions=True
    )
    assert isinstance(results[1], Conflict)
    assert results[1].message == "Address already in use: 192.168.1.77 in network staticnet"
    assert not first.records(keys.ADDRESSES)


async def test_one_fixed_address_goes_to_one_host(hosts: tuple[Agent, ...]) -> None:
    results = await asyncio.gather(*(claim(agent, "192.168.0.2") for agent in hosts), return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["Conflict", "Conflict", "NoneType"]


async def test_a_small_network_runs_out_of_blocks_by_name(hosts: tuple[Agent, ...]) -> None:
    small = await hosts[0].create_network("small", subnets=("10.55.0.0/29",), host_prefix=30)
    await settled()
    await hosts[0].blocks.ensure(small)
    await settled()
    with pytest.raises(Exhausted, match=r"no free block in subnet 10\.55\.0\.0/29: all are held by hosts"):
        await hosts[1].blocks.ensure(small)


async def test_nothing_is_claimed_in_a_network_that_has_changed_meanwhile(
    hosts: tuple[Agent, ...], cluster: MemoryStore
) -> None:
    network = overlay(hosts[1])
    await cluster.transact([], [Delete(key=keys.network_key(network.name))])
    with pytest.raises(Unavailable):
        await hosts[1].blocks.ensure(network)
    with pytest.raises((Conflict, Unavailable)):
        await hosts[1].blocks.claim_address(network, parse_address("192.168.0.2"), EndpointId("e" * 64))
    assert not (await cluster.list(keys.BLOCKS)).entries
    assert not (await cluster.list(keys.ADDRESSES)).entries


async def test_a_claim_is_told(hosts: tuple[Agent, ...]) -> None:
    await hosts[0].blocks.ensure(overlay(hosts[0]))
    event = hosts[0].events.recent()[-1]
    assert (event.type, event.action, dict(event.attributes)) == (
        "network",
        "claim",
        {"name": "staticnet", "block": "192.168.1.0/24", "host": "h1"},
    )


async def test_peers_lead_to_each_others_blocks_and_fixed_addresses(hosts: tuple[Agent, ...]) -> None:
    first, second, third = hosts
    await first.attach("one", "staticnet")
    await second.attach("two", "staticnet", ip="192.168.0.2")
    await settled()
    tunnel = "nav" + overlay(first).id[:12]
    assert {str(r) for r in first.kernel.routes.values() if not r.where} == {
        f"192.168.2.0/24 via 192.168.2.0 dev {tunnel} src 192.168.1.0 onlink",
        f"192.168.0.2/32 via 192.168.2.0 dev {tunnel} src 192.168.1.0 onlink",
    }
    assert not third.kernel.links
    await second.attachments.detach("two")
    await settled()
    assert len([r for r in first.kernel.routes.values() if not r.where]) == 1


async def test_the_hosts_know_each_other_and_what_they_hold(hosts: tuple[Agent, ...]) -> None:
    await hosts[1].attach("two", "staticnet")
    await settled()
    rows = [
        (view.host.name, view.live, view.is_self, [str(b.prefix) for _, b in view.blocks])
        for view in hosts[0].hosts.list()
    ]
    assert rows == [("h1", True, True, []), ("h2", True, False, ["192.168.1.0/24"]), ("h3", True, False, [])]


async def test_a_host_whose_block_is_full_claims_another(hosts: tuple[Agent, ...]) -> None:
    network = await hosts[0].create_network("small", subnets=("10.55.0.0/28",), host_prefix=30)
    given = [str((await hosts[0].attach(f"c{n}", "small")).address_of(4)) for n in range(4)]
    assert given == ["10.55.0.5", "10.55.0.6", "10.55.0.7", "10.55.0.9"]
    assert len(hosts[0].context.snapshot().own_blocks_in(network.id)) == 2


async def test_a_host_that_uses_the_subnet_otherwise_claims_no_block(
    start_agent: StartAgent, cluster: MemoryStore, hosts: tuple[Agent, ...]
) -> None:
    await hosts[1].create_network("app", driver="bridge", subnets=("10.55.7.0/24",))
    await hosts[0].create_network("wide", subnets=("10.55.0.0/16",))
    await hosts[0].attach("web", "wide")
    with pytest.raises(Conflict, match=r"subnet 10\.55\.0\.0/16 overlaps with 10\.55\.7\.0/24 of network app"):
        await hosts[1].attach("web", "wide")
    await hosts[2].stop()
    routed = await start_agent(3, cluster=cluster, facts=facts("10.55.0.0/17"))
    with pytest.raises(Conflict, match=r"the host's route 10\.55\.0\.0/17 dev eth0"):
        await routed.attach("web", "wide")
    assert len(hosts[0].records(keys.BLOCKS)) == 1


async def test_hosts_are_listed_in_natural_order(start_agent: StartAgent, cluster: MemoryStore) -> None:
    await start_agent(1, cluster=cluster, host=replace(a_host(1), name="h10"))
    second = await start_agent(2, cluster=cluster)
    await settled()
    assert [view.host.name for view in second.hosts.list()] == ["h2", "h10"]
