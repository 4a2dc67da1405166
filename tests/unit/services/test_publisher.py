"""What this host says of itself in the store follows from its journal, whatever came between."""

import asyncio
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from netagent.errors import Conflict, EnvironmentProblem
from netagent.model.address import parse_address
from netagent.model.block import BlockState, FixedAddress
from netagent.model.endpoint import EndpointState
from netagent.model.ids import EndpointId
from netagent.model.network import Network
from netagent.reconcile.ports import Delete, Put
from netagent.store import keys
from netagent.store.endpoint_records import decode_endpoint
from netagent.store.memory import MemoryStore
from netagent.store.records import decode_block, decode_host, encode_block, encode_fixed, encode_host
from tests.support.agent import Agent, settled
from tests.support.eventually import eventually
from tests.support.world import H1, H2, a_block, a_host
from tests.unit.services.conftest import StartAgent


@pytest.fixture
async def online(agent: Agent) -> Agent:
    """An agent with an overlay and an endpoint ``web`` in it."""
    await agent.create_network()
    await agent.attach("web", "staticnet")
    await settled()
    return agent


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.services.publisher.FIRST_RETRY_S", 0.001)
    monkeypatch.setattr("netagent.services.publisher.LAST_RETRY_S", 0.002)


def published(agent: Agent) -> dict[str, str]:
    """Container name -> address, as the store has this host's endpoints."""
    values = agent.records(keys.own_endpoints_prefix(agent.host.id)).values()
    return {e.container_name: str(e.address_of(4)) for e in map(decode_endpoint, values)}


def fixed(agent: Agent, address: str) -> str:
    network = agent.networks.find("staticnet")
    block = network.subnets[0].reserved_block
    assert block is not None
    return keys.address_key(network.id, block, parse_address(address))


async def put(cluster: MemoryStore, key: str, value: bytes) -> None:
    await cluster.transact([], [Put(key=key, value=value)])
    await settled()


async def test_a_host_says_who_it_is_and_that_it_lives(agent: Agent) -> None:
    assert decode_host(agent.records()[keys.host_key(H1)]) == agent.host
    assert keys.live_key(H1) in agent.records()
    assert agent.context.snapshot().live == {H1}


async def test_endpoints_are_published_and_withdrawn(online: Agent) -> None:
    await online.attach("api", "staticnet")
    await settled()
    assert published(online) == {"web": "192.168.1.1", "api": "192.168.1.2"}
    await online.attachments.detach("web")
    await settled()
    assert published(online) == {"api": "192.168.1.2"}


async def test_a_drained_host_keeps_a_block_for_the_way_to_its_fixed_address(
    online: Agent, cluster: MemoryStore
) -> None:
    await online.attach("db", "staticnet", ip="192.168.0.7")
    await put(cluster, keys.drain_key(online.host.id), b"{}")
    await online.attachments.detach("web")
    await settled()
    (value,) = online.records(keys.BLOCKS).values()
    assert decode_block(value).state is BlockState.DRAINING
    await online.attachments.detach("db")
    await settled()
    assert online.records(keys.BLOCKS) == {}


async def test_of_two_empty_blocks_that_drain_one_is_kept_for_a_fixed_address(
    online: Agent, cluster: MemoryStore
) -> None:
    network = online.networks.find("staticnet")
    await online.attach("db", "staticnet", ip="192.168.0.7")
    second = a_block("192.168.9.0/24", online.host.id, network=network.id)
    await put(cluster, keys.block_key(network.id, second.prefix), encode_block(second))
    await online.attachments.detach("web")
    await put(cluster, keys.drain_key(online.host.id), b"{}")
    await settled()
    assert [str(decode_block(v).prefix) for v in online.records(keys.BLOCKS).values()] == ["192.168.1.0/24"]


async def test_a_sleeping_endpoint_is_not_published(online: Agent) -> None:
    (endpoint,) = online.journal.endpoints.values()
    await online.endpoints.detach([endpoint], keep_fixed=True)
    await settled()
    assert published(online) == {}


async def test_an_endpoint_of_a_local_network_stays_out_of_the_cluster(online: Agent, cluster: MemoryStore) -> None:
    revision = (await cluster.list("/")).revision
    await online.attach("api")
    await settled()
    assert (await cluster.list("/")).revision == revision
    entries = online.stores.local.mirror.entries
    assert any(key.startswith(keys.own_endpoints_prefix(H1)) for key in entries)


async def test_a_store_that_has_everything_is_not_written(online: Agent, cluster: MemoryStore) -> None:
    revision = (await cluster.list("/")).revision
    online.publisher.request()
    await settled()
    assert (await cluster.list("/")).revision == revision


@pytest.mark.usefixtures("impatient")
async def test_what_happened_while_the_store_was_away_is_told_when_it_is_back(
    online: Agent, cluster: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.disconnect()
    await online.attach("api", "staticnet")
    await online.attach("brief", "staticnet")
    await online.attachments.detach("brief")
    await online.attachments.detach("web")
    await settled()
    assert published(online) == {"web": "192.168.1.1"}
    assert online.info.info().store_error
    await cluster.reconnect()

    async def is_told() -> bool:
        return published(online) == {"api": "192.168.1.2"}

    await eventually(is_told, every=0.001)
    await settled()
    assert not online.info.info().store_error
    assert sum("does not have this host's latest records" in record.message for record in caplog.records) == 1


async def test_records_that_somebody_changed_or_removed_are_put_right(online: Agent, cluster: MemoryStore) -> None:
    before = online.records()
    (endpoint,) = online.journal.endpoints.values()
    key = keys.endpoint_key(H1, endpoint.network_id, endpoint.id)
    await cluster.transact([], [Delete(key=key), Put(key=keys.host_key(H1), value=encode_host(a_host(1, mtu=9000)))])
    await put(cluster, keys.endpoint_key(H1, endpoint.network_id, EndpointId("f" * 64)), before[key])
    assert online.records() == before


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{", b"\xff", b"[1]", b"[" * 100_000],
    ids=["empty", "cut off", "not text", "no object", "deep"],
)
async def test_garbage_under_this_hosts_own_keys_is_replaced(
    online: Agent, cluster: MemoryStore, garbage: bytes
) -> None:
    before = online.records()
    (endpoint,) = online.journal.endpoints.values()
    await put(cluster, keys.endpoint_key(H1, endpoint.network_id, endpoint.id), garbage)
    await put(cluster, keys.host_key(H1), garbage)
    assert online.records() == before


async def test_keys_of_a_later_version_in_this_hosts_record_are_kept(agent: Agent, cluster: MemoryStore) -> None:
    later = msgspec.json.encode({**msgspec.json.decode(encode_host(a_host(1, mtu=9000))), "rack": "b7"})
    await put(cluster, keys.host_key(H1), later)
    record = msgspec.json.decode(agent.records()[keys.host_key(H1)])
    assert (record["mtu"], record["rack"]) == (1500, "b7")


@pytest.mark.parametrize("turns", range(4))
async def test_an_agent_that_has_just_something_to_tell_can_be_stopped_all_the_same(online: Agent, turns: int) -> None:
    online.publisher.request()
    online.engine.request()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await online.stop()


async def test_fixed_addresses_that_no_endpoint_has_are_given_back(online: Agent, cluster: MemoryStore) -> None:
    await online.attach("kept", "staticnet", ip="192.168.0.2")
    await online.attach("sleeper", "staticnet", ip="192.168.0.3")
    sleeper = next(e for e in online.journal.endpoints.values() if e.container_name == "sleeper")
    await online.endpoints.detach([sleeper], keep_fixed=True)
    network = online.networks.find("staticnet")
    surplus = FixedAddress(
        network_id=network.id, address=parse_address("192.168.0.9"), owner=H1, epoch=1, endpoint_id=sleeper.id
    )
    theirs = replace(surplus, address=parse_address("192.168.0.8"), owner=H2)
    await put(cluster, fixed(online, "192.168.0.8"), encode_fixed(theirs))
    await put(cluster, fixed(online, "192.168.0.9"), encode_fixed(surplus))
    assert set(online.records(keys.ADDRESSES)) == {
        fixed(online, address) for address in ("192.168.0.2", "192.168.0.3", "192.168.0.8")
    }


async def test_a_lost_lease_is_answered_by_a_new_live_key(online: Agent, cluster: MemoryStore) -> None:
    cluster.expire_lease()
    await settled()
    entry = await cluster.get(keys.live_key(H1))
    assert entry is not None
    # It hangs on the lease again, and goes with the next one.
    online._stopping.set()
    await settled()
    cluster.expire_lease()
    assert await cluster.get(keys.live_key(H1)) is None


async def test_a_new_lease_is_answered_although_the_old_key_still_seems_to_be_there(
    online: Agent, cluster: MemoryStore
) -> None:
    before = await cluster.get(keys.live_key(H1))
    for callback in cluster._lease_callbacks:
        callback()
    await settled()
    after = await cluster.get(keys.live_key(H1))
    assert before is not None
    assert after is not None
    assert after.revision > before.revision


@pytest.mark.usefixtures("impatient")
async def test_a_start_without_the_store_puts_the_live_key_anew_when_it_is_back(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    await agent.stop()
    before = await cluster.get(keys.live_key(H1))
    assert before is not None
    await cluster.disconnect()
    await start_agent(cluster=cluster)
    await settled()
    await cluster.reconnect()

    async def is_new() -> bool:
        entry = await cluster.get(keys.live_key(H1))
        return entry is not None and entry.revision > before.revision

    await eventually(is_new, every=0.001)


async def test_the_live_key_of_an_agents_earlier_life_is_put_anew(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    await agent.stop()
    before = await cluster.get(keys.live_key(H1))
    await start_agent(cluster=cluster)
    after = await cluster.get(keys.live_key(H1))
    assert before is not None
    assert after is not None
    assert after.revision > before.revision


async def test_blocks_are_given_back_when_the_kernel_holds_nothing_of_the_network_any_more(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    other = await start_agent(2, cluster=cluster)
    await online.attachments.detach("web")
    await settled()
    assert online.kernel.links
    order: list[str] = []
    online.stores.cluster.subscribe(lambda changed: order.append(f"{len(online.kernel.links)} {sorted(changed)}"))
    async for _ in other.network_removal.remove("staticnet"):
        pass
    await settled()
    released = next(line for line in order if keys.BLOCKS in line)
    assert released.startswith("0 ")


async def test_a_network_with_an_endpoint_here_keeps_its_block_until_that_is_gone(
    online: Agent, cluster: MemoryStore
) -> None:
    network = online.networks.find("staticnet")
    await _mark_deleting(cluster, network)
    assert online.records(keys.BLOCKS)
    assert online.kernel.links
    with pytest.raises(Conflict, match="network staticnet is being deleted"):
        await online.attach("late", "staticnet")
    await online.attachments.detach("web")
    await settled()
    assert not online.records(keys.BLOCKS)
    assert keys.network_key("staticnet") not in online.records()
    assert not online.kernel.links


async def _mark_deleting(cluster: MemoryStore, network: Network) -> None:
    key = keys.network_key(network.name)
    entry = await cluster.get(key)
    assert entry is not None
    await put(cluster, key, entry.value.replace(b'"active"', b'"deleting"'))


async def test_a_wiped_store_tears_nothing_down_and_is_told_what_it_should_know(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    other = await start_agent(2, cluster=cluster)
    await other.attach("theirs", "staticnet")
    await online.attach("kept", "staticnet", ip="192.168.0.2")
    await settled()
    tables = online.picture().kernel
    await cluster.transact([], [Delete(key=entry.key) for entry in (await cluster.list("/")).entries])
    await settled()
    assert online.picture().kernel == tables
    assert set(published(online)) == {"web", "kept"}
    # New containers come up in the block that is kept.
    assert str((await online.attach("more", "staticnet")).address_of(4)) == "192.168.1.2"


async def test_what_was_kept_of_a_wiped_store_goes_with_its_last_endpoint(online: Agent, cluster: MemoryStore) -> None:
    await cluster.transact([], [Delete(key=entry.key) for entry in (await cluster.list("/")).entries])
    await settled()
    assert online.kernel.links
    await online.attachments.detach("web")
    await settled()
    assert "staticnet" not in [network.name for network in online.networks.list()]
    assert not online.kernel.links


async def test_an_agent_that_was_told_garbage_of_peers_serves_its_own(online: Agent, cluster: MemoryStore) -> None:
    network = online.networks.find("staticnet")
    stranger = replace(a_host(2), underlay=())
    await put(cluster, keys.host_key(H2), encode_host(stranger))
    block = a_block("192.168.2.0/24", H2, network=network.id)
    await put(cluster, keys.block_key(network.id, block.prefix), encode_block(block))
    await put(cluster, keys.host_key(a_host(3).id), b"not even json")
    await online.engine.reconcile()
    endpoint = await online.attach("api", "staticnet")
    assert endpoint.state is EndpointState.ATTACHED
    assert online.engine.status.error is None


async def test_a_host_that_none_can_reach_claims_nothing_across_hosts(
    start_agent: StartAgent, cluster: MemoryStore
) -> None:
    agent = await start_agent(cluster=cluster, host=replace(a_host(1), underlay=()))
    await agent.create_network()
    with pytest.raises(EnvironmentProblem, match="network staticnet needs an address of this host"):
        await agent.attach("web", "staticnet")
    assert not agent.records(keys.BLOCKS)
    await agent.attach("api")


@pytest.mark.parametrize(
    "record", [b"{", b'{"v":2}', b'{"v":1,"requires":["later"]}'], ids=["bad", "version", "feature"]
)
async def test_a_network_in_use_stays_when_its_record_cannot_be_used_any_more(
    online: Agent, cluster: MemoryStore, record: bytes
) -> None:
    good = online.records()[keys.network_key("staticnet")]
    tables = online.picture().kernel
    await put(cluster, keys.network_key("staticnet"), record)
    assert online.picture().kernel == tables
    assert keys.network_key("staticnet") in online.info.info().refused
    await put(cluster, keys.network_key("staticnet"), good)
    assert online.info.info().refused == {}
    await put(cluster, keys.network_key("staticnet"), record)
    await online.attachments.detach("web")
    await settled()
    assert not online.kernel.links


async def wipe(cluster: MemoryStore) -> None:
    await cluster.transact([], [Delete(key=entry.key) for entry in (await cluster.list("/")).entries])
    await settled()


@pytest.mark.parametrize("loss", ["wiped", "bad"])
async def test_what_is_in_use_outlives_its_record_and_a_restart(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore, directory: Path, loss: str
) -> None:
    await online.attach("local")
    await settled()
    before = online.picture()
    good = online.records()[keys.network_key("staticnet")]
    if loss == "bad":
        await put(cluster, keys.network_key("staticnet"), b'{"v":2}')
    await online.stop()
    if loss == "wiped":
        await wipe(cluster)
        (directory / "h1" / "cluster.snapshot").unlink()
    online.kernel.applied.clear()
    again = await start_agent(cluster=cluster, kernel=online.kernel)
    assert again.picture().kernel == before.kernel
    assert again.picture().endpoints == before.endpoints
    assert online.kernel.applied == []
    assert len(again.context.snapshot().blocks) == len(set(again.context.snapshot().blocks)) == 2
    if loss == "bad":
        await put(cluster, keys.network_key("staticnet"), good)
        assert again.picture().records == before.records
    assert str((await again.attach("api", "staticnet")).address_of(4)) == "192.168.1.2"


async def test_what_was_known_of_peers_outlives_a_wiped_store_and_a_restart(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore, directory: Path
) -> None:
    peer = await start_agent(2, cluster=cluster)
    await peer.attach("theirs", "staticnet")
    await settled()
    before, kept = online.context.snapshot(), set(online.journal.adopted)
    records = online.records()
    await peer.stop()
    await wipe(cluster)
    await online.stop()
    (directory / "h1" / "cluster.snapshot").unlink()
    again = await start_agent(cluster=cluster, kernel=online.kernel)
    assert set(again.context.snapshot().blocks) == set(before.blocks)
    assert again.context.snapshot().hosts == before.hosts
    again.kernel.applied.clear()
    await cluster.transact([], [Put(key=k, value=v) for k, v in records.items() if not k.startswith(keys.LIVE)])
    await settled()
    assert set(again.journal.adopted) == kept
    assert again.kernel.applied == []


async def test_the_journal_forgets_the_records_of_networks_that_are_not_used_any_more(online: Agent) -> None:
    network = online.networks.find("staticnet")
    assert keys.network_key("staticnet") in online.journal.adopted
    assert any(key.startswith(keys.blocks_prefix(network.id)) for key in online.journal.adopted)
    await online.attachments.detach("web")
    await settled()
    assert online.journal.adopted == {}


async def test_a_block_that_a_restored_store_has_lost_is_claimed_anew(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    network = online.networks.find("staticnet")
    key = keys.block_key(network.id, a_block("192.168.1.0/24", H1).prefix)
    before = online.records()[key]
    await cluster.transact([], [Delete(key=key)])
    await settled()
    assert online.records()[key] == before
    other = await start_agent(2, cluster=cluster)
    assert str((await other.attach("theirs", "staticnet")).address_of(4)) == "192.168.2.1"


async def test_a_cluster_that_is_away_does_not_keep_the_hosts_own_store_from_being_told(
    online: Agent, cluster: MemoryStore
) -> None:
    await cluster.disconnect()
    await online.attach("local")
    await settled()
    entries = online.stores.local.mirror.entries
    assert any(key.startswith(keys.own_endpoints_prefix(H1)) for key in entries)


async def test_a_block_stays_while_the_kernel_refuses_to_let_go_of_the_network(
    online: Agent, cluster: MemoryStore
) -> None:
    network = online.networks.find("staticnet")
    await online.attachments.detach("web")
    await settled()
    online.kernel.refused = "link delete"
    await _mark_deleting(cluster, network)
    assert online.kernel.links
    assert online.records(keys.BLOCKS)
    online.kernel.refused = ""
    await online.engine.reconcile()
    online.publisher.request()
    await settled()
    assert not online.records(keys.BLOCKS)
