"""Networks: what is refused and how, races between hosts, and removal in steps that every host takes."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from netagent.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    NetagentError,
    NotFound,
    Unavailable,
)
from netagent.model.address import parse_address
from netagent.model.block import FixedAddress
from netagent.model.ids import EndpointId
from netagent.model.network import Network, NetworkState
from netagent.reconcile.ports import Put
from netagent.services.requests import NewNetwork
from netagent.store import keys
from netagent.store.memory import MemoryStore
from netagent.store.network_records import encode_network
from netagent.store.records import encode_block, encode_fixed, encode_host
from tests.support.agent import Agent, settled
from tests.support.world import H3, a_block, a_host, facts
from tests.unit.services.conftest import StartAgent


async def remove(agent: Agent, name: str = "staticnet", *, force: bool = False) -> list[tuple[str, ...]]:
    """Remove a network; return whom the removal waited for, round by round."""
    return [waiting async for waiting in agent.network_removal.remove(name, force=force)]


@pytest.fixture
async def pair(start_agent: StartAgent, cluster: MemoryStore) -> tuple[Agent, Agent]:
    """Two hosts of one cluster."""
    return await start_agent(1, cluster=cluster), await start_agent(2, cluster=cluster)


# Creating


async def test_a_new_network_is_known_to_all_hosts_and_in_no_kernel(pair: tuple[Agent, Agent]) -> None:
    network = await pair[0].create_network("staticnet", labels={"team": "a"}, internal=True, options={"mtu": "1400"})
    assert (network.vni, network.mtu, network.internal, network.labels["team"]) == (4097, 1400, True, "a")
    assert pair[1].networks.find("staticnet") == network
    assert not pair[0].kernel.links


async def test_a_local_network_is_its_hosts_own_affair(pair: tuple[Agent, Agent], cluster: MemoryStore) -> None:
    revision = (await cluster.list("/")).revision
    await pair[0].create_network("app", driver="bridge", subnets=("10.55.0.0/24",))
    await pair[1].create_network("app", driver="bridge", subnets=("10.55.0.0/24",))
    assert (await cluster.list("/")).revision == revision


async def test_subnets_are_chosen_where_none_is_given(agent: Agent) -> None:
    first = await agent.create_network("one", subnets=())
    second = await agent.create_network("two", subnets=())
    local = await agent.create_network("app", driver="bridge", subnets=())
    assert [str(n.subnets[0].prefix) for n in (first, second, local)] == [
        "10.128.0.0/16",
        "10.129.0.0/16",
        "172.16.1.0/24",
    ]
    assert (first.vni, second.vni, local.vni) == (4097, 4098, None)


async def test_gateways_go_to_the_subnets_of_their_family(agent: Agent) -> None:
    network = await agent.create_network(
        "dual", subnets=("10.55.0.0/16", "fd00:55::/64"), gateways=("fd00:55::9", "10.55.0.9"), ipv6=True
    )
    assert [str(subnet.gateway) for subnet in network.subnets] == ["10.55.0.9", "fd00:55::9"]


REFUSED: list[tuple[dict[str, Any], type[NetagentError], str]] = [
    ({"name": "taken"}, AlreadyExists, "network with name taken already exists"),
    (
        {"name": "taken", "subnets": ("10.66.0.0/16",)},
        AlreadyExists,
        "network with name taken already exists",
    ),
    ({"name": "host"}, InvalidRequest, "operation is not permitted on predefined host network"),
    ({"name": "a/b"}, InvalidRequest, "invalid network name 'a/b'"),
    ({"driver": "overlay"}, InvalidRequest, 'plugin "overlay" not found'),
    (
        {"subnets": ("10.66.7.0/24",)},
        Conflict,
        "subnet 10.66.7.0/24 overlaps with 10.66.0.0/16 of network taken",
    ),
    (
        {"subnets": ("10.1.0.0/24", "10.1.0.0/16")},
        InvalidRequest,
        "multiple overlapping subnet configuration is not supported",
    ),
    (
        {"subnets": ("198.18.7.0/24",)},
        Conflict,
        "subnet 198.18.7.0/24 overlaps with the host's route 198.18.0.0/15 dev eth0",
    ),
    ({"subnets": ("10.1.0.5/16",)}, InvalidRequest, "invalid subnet 10.1.0.5/16: it should be 10.1.0.0/16"),
    ({"subnets": ("127.0.0.0/16",)}, InvalidRequest, "invalid subnet 127.0.0.0/16: 127.0.0.0/8 is not for containers"),
    (
        {"subnets": ("10.1.0.0/16",), "gateways": ("10.2.0.1",)},
        InvalidRequest,
        "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/16 doesn't contain this address",
    ),
    (
        {"subnets": (), "gateways": ("10.2.0.1",)},
        InvalidRequest,
        "every ip-range or gateway must have a corresponding subnet",
    ),
    (
        {"subnets": ("10.1.0.0/16",), "gateways": ("fd00::1",)},
        InvalidRequest,
        "no matching subnet for gateway fd00::1",
    ),
    ({"options": {"colour": "red"}}, InvalidRequest, "unknown option colour"),
    ({"labels": {"": "x"}}, InvalidRequest, "invalid label '=x': empty name"),
    ({"labels": {"k": "v" * 4097}}, InvalidRequest, "label 'k' is too long"),
    (
        {"subnets": ("10.1.0.0/16",), "aux_addresses": {"n" * 4097: "10.1.0.9"}},
        InvalidRequest,
        (
            "network new cannot be kept in the store: record is not valid:"
            " Expected `str` of length <= 4096 - at `key` in `$.subnets[0].auxiliary`"
        ),
    ),
    ({"options": {"mtu": "67"}}, InvalidRequest, "invalid MTU number: 67"),
    ({"options": {"mtu": "1500 "}}, InvalidRequest, "invalid MTU number: 1500 "),
    ({"subnets": ("fd00:1::/64",), "options": {"mtu": "1279"}}, InvalidRequest, "invalid MTU number: 1279"),
    (
        {"driver": "bridge", "host_prefix": 28},
        InvalidRequest,
        "invalid host prefix /28: the network lives on one host",
    ),
    (
        {"subnets": ("10.1.0.0/16",), "host_prefix": 16},
        InvalidRequest,
        "invalid host prefix /16 for subnet 10.1.0.0/16: a block must be smaller than the subnet",
    ),
]


@pytest.mark.parametrize(("wish", "error", "message"), REFUSED, ids=[str(wish)[:60] for wish, _, _ in REFUSED])
async def test_what_cannot_work_is_refused_in_one_line_before_anything_changes(
    start_agent: StartAgent,
    cluster: MemoryStore,
    wish: dict[str, Any],
    error: type[NetagentError],
    message: str,
) -> None:
    agent = await start_agent(cluster=cluster, facts=facts("0.0.0.0/0", "198.18.0.0/15"))
    await agent.create_network("taken", subnets=("10.66.0.0/16",))
    before = agent.picture()
    request = {"name": "new", "driver": "vxlan", "subnets": ("10.1.0.0/16",), **wish}
    with pytest.raises(error) as caught:
        await agent.networks.create(NewNetwork(**request))
    assert caught.value.message == message
    assert "\n" not in str(caught.value)
    assert agent.picture() == before


async def test_creating_without_the_store_says_so(agent: Agent, cluster: MemoryStore) -> None:
    await cluster.disconnect()
    with pytest.raises(Unavailable):
        await agent.networks.create(NewNetwork(name="new", driver="vxlan"))
    await agent.create_network("app", driver="bridge", subnets=("10.55.0.0/24",))


async def test_of_two_overlapping_creates_at_once_one_wins(pair: tuple[Agent, Agent]) -> None:
    attempts = [
        agent.networks.create(NewNetwork(name=f"net{n}", driver="vxlan", subnets=(subnet,)))
        for n, (agent, subnet) in enumerate(zip(pair, ("10.55.0.0/16", "10.55.7.0/24"), strict=True))
    ]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    await settled()
    (lost,) = (r for r in results if isinstance(r, BaseException))
    assert isinstance(lost, Conflict)
    assert "overlaps with 10.55.0.0/16 of network net0" in lost.message
    assert len([n for n in pair[1].networks.list() if n.driver == "vxlan"]) == 1


async def test_of_two_overlapping_creates_without_numbers_at_once_one_wins(agent: Agent) -> None:
    attempts = [
        agent.networks.create(NewNetwork(name=f"net{n}", driver="bridge", subnets=(subnet,)))
        for n, subnet in enumerate(("10.55.0.0/16", "10.55.7.0/24"))
    ]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["Conflict", "Network"]


async def test_of_two_creates_of_one_name_at_once_one_wins(pair: tuple[Agent, Agent]) -> None:
    attempts = [
        agent.networks.create(NewNetwork(name="staticnet", driver="vxlan", subnets=(subnet,)))
        for agent, subnet in zip(pair, ("10.55.0.0/16", "10.66.0.0/16"), strict=True)
    ]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["AlreadyExists", "Network"]


async def test_creates_at_once_get_different_numbers_and_subnets(pair: tuple[Agent, Agent]) -> None:
    attempts = [
        agent.networks.create(NewNetwork(name=f"{agent.host.name}-{n}", driver="vxlan"))
        for n in range(5)
        for agent in pair
    ]
    networks = await asyncio.gather(*attempts)
    assert len({network.vni for network in networks}) == 10
    assert len({network.subnets for network in networks}) == 10


async def test_a_subnet_that_holds_a_hosts_address_is_refused(pair: tuple[Agent, Agent]) -> None:
    with pytest.raises(Conflict) as caught:
        await pair[0].networks.create(NewNetwork(name="new", driver="vxlan", subnets=("198.18.0.0/24",)))
    assert caught.value.message.startswith("the subnet holds the address 198.18.0.")


# Looking


async def test_networks_are_found_by_name_id_and_unique_beginning(agent: Agent) -> None:
    network = await agent.create_network()
    assert agent.networks.find("staticnet") == network
    assert agent.networks.find(network.id) == network
    assert agent.networks.find(network.id[:12]) == network
    with pytest.raises(NotFound, match="network nowhere not found"):
        agent.networks.find("nowhere")
    with pytest.raises(InvalidRequest, match="network 1 is ambiguous"):
        agent.networks.find("1")


async def test_networks_are_listed_in_natural_order(agent: Agent) -> None:
    for name in ("net10", "net2"):
        await agent.create_network(name, subnets=())
    assert [network.name for network in agent.networks.list()] == ["bridge", "host", "net2", "net10", "none"]


async def test_a_view_shows_all_hosts_endpoints_and_who_holds_which_block(pair: tuple[Agent, Agent]) -> None:
    await pair[0].create_network()
    await pair[0].attach("web2", "staticnet")
    await pair[1].attach("web10", "staticnet")
    await settled()
    view = pair[0].networks.view("staticnet")
    assert [(e.container_name, host.name) for e, host in view.endpoints] == [("web2", "h1"), ("web10", "h2")]
    assert [(str(block.prefix), host and host.name, used) for block, host, used in view.blocks] == [
        ("192.168.1.0/24", "h1", 1),
        ("192.168.2.0/24", "h2", 1),
    ]
    assert view.effective_mtu == 1450
    assert pair[0].networks.view("none").effective_mtu == 0


# Removing


async def test_a_removed_network_leaves_nothing_on_any_host(pair: tuple[Agent, Agent]) -> None:
    before = [agent.picture() for agent in pair]
    network = await pair[0].create_network()
    for agent in pair:
        await agent.attach("web", "staticnet", ip=f"192.168.0.{agent.host.id[-1]}0")
        await agent.attach("api", "staticnet")
        await agent.attachments.detach("web")
        await agent.attachments.detach("api")
    await settled()
    assert pair[1].kernel.links
    waited = await remove(pair[0])
    await settled()
    assert waited[0] == ("h1", "h2")
    assert [_no_generation(agent.picture().records) for agent in pair] == [_no_generation(b.records) for b in before]
    assert [agent.kernel.links for agent in pair] == [{}, {}]
    assert pair[0].journal.last_address(network.id, 4) is None


def _no_generation(records: Any) -> dict[str, bytes]:
    return {key: value for key, value in records.items() if key != keys.GENERATION}


async def test_a_network_in_use_anywhere_is_not_removed(pair: tuple[Agent, Agent]) -> None:
    await pair[0].create_network()
    endpoint = await pair[1].attach("web", "staticnet")
    await settled()
    with pytest.raises(Conflict) as caught:
        await remove(pair[0])
    assert caught.value.message == (
        "error while removing network: network staticnet has active endpoints"
        f' (name:"web" id:"{endpoint.container_id[:12]}")'
    )
    assert pair[0].networks.find("staticnet").state is NetworkState.ACTIVE


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
async def test_predefined_networks_are_not_removed(agent: Agent, name: str) -> None:
    with pytest.raises(Conflict, match=f"^{name} is a pre-defined network and cannot be removed"):
        await remove(agent, name)


async def test_a_network_being_deleted_takes_no_container(agent: Agent, cluster: MemoryStore) -> None:
    network = await agent.create_network()
    await _held_by_absent_host(cluster, network)
    removal = agent.network_removal.remove("staticnet")
    assert await anext(removal) == ("h3",)
    with pytest.raises(Conflict, match="network staticnet is being deleted"):
        await agent.attach("web", "staticnet")
    # Neither does one that looked the network up before.
    with pytest.raises(Conflict, match="network staticnet is being deleted"):
        await agent.blocks.ensure(network)
    with pytest.raises(Conflict, match="network staticnet is being deleted"):
        await agent.blocks.claim_address(network, parse_address("192.168.0.2"), EndpointId("e" * 64))
    await removal.aclose()  # type: ignore[attr-defined]


async def _held_by_absent_host(cluster: MemoryStore, network: Network) -> None:
    block = a_block("192.168.200.0/24", H3, network=network.id)
    await cluster.transact(
        [],
        [
            Put(key=keys.host_key(H3), value=encode_host(a_host(3))),
            Put(key=keys.block_key(network.id, block.prefix), value=encode_block(block)),
        ],
    )
    await settled()


async def test_a_removal_names_the_hosts_it_waits_for_and_says_what_to_do(
    agent: Agent, cluster: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.services.network_removal.REMOVE_PATIENCE_S", 0)
    network = await agent.create_network()
    await _held_by_absent_host(cluster, network)
    with pytest.raises(Unavailable) as caught:
        await remove(agent)
    assert caught.value.message == ("network staticnet is being deleted, but h3 did not give its blocks back")
    assert "rm -f staticnet" in caught.value.hint


async def test_force_takes_the_blocks_of_hosts_that_are_not_live(agent: Agent, cluster: MemoryStore) -> None:
    network = await agent.create_network()
    await _held_by_absent_host(cluster, network)
    await remove(agent, force=True)
    assert _of_network(agent, network) == [keys.gone_key(network.id)]
    assert agent.network_removal.ignorant_of(network.id) == ["h3"]


async def test_force_does_not_count_the_containers_of_hosts_that_are_not_live(
    pair: tuple[Agent, Agent], cluster: MemoryStore
) -> None:
    network = await pair[0].create_network()
    await pair[1].attach("web", "staticnet")
    await settled()
    with pytest.raises(Conflict, match='active endpoints \\(name:"web"'):
        await remove(pair[0], force=True)
    await pair[1].stop()
    cluster.expire_lease()
    await settled()
    with pytest.raises(Conflict, match="active endpoints"):
        await remove(pair[0])
    await remove(pair[0], force=True)
    assert _of_network(pair[0], network) == [keys.gone_key(network.id)]


async def test_force_takes_nothing_from_a_live_host(pair: tuple[Agent, Agent], cluster: MemoryStore) -> None:
    await pair[0].create_network()
    await pair[1].attach("web", "staticnet")
    await pair[1].attachments.detach("web")
    await pair[1].stop()
    blocks = (await cluster.list(keys.BLOCKS)).entries
    # That agent has stopped without a word, and its lease is still there.
    removal = pair[0].network_removal.remove("staticnet", force=True)
    assert await anext(removal) == ("h2",)
    await settled()
    assert (await cluster.list(keys.BLOCKS)).entries == blocks
    await removal.aclose()  # type: ignore[attr-defined]


def _of_network(agent: Agent, network: Network) -> list[str]:
    records = _no_generation(agent.records())
    return [key for key, value in records.items() if network.id in key or network.id.encode() in value]


async def test_any_number_of_fixed_addresses_goes_with_its_network(agent: Agent, cluster: MemoryStore) -> None:
    network = await agent.create_network()
    for number in range(2, 202):
        address = parse_address(f"192.168.0.{number}")
        claim = FixedAddress(
            network_id=network.id, address=address, owner=H3, epoch=1, endpoint_id=EndpointId(f"{number:064x}")
        )
        block = network.subnets[0].reserved_block
        assert block is not None
        key = keys.address_key(network.id, block, address)
        await cluster.transact([], [Put(key=key, value=encode_fixed(claim))])
    await settled()
    await remove(agent)
    assert not agent.records(keys.ADDRESSES)
    assert "staticnet" not in [n.name for n in agent.networks.list()]


async def test_a_removal_that_a_crash_interrupted_is_finished_at_the_next_start(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    network = await agent.create_network()
    await agent.attach("web", "staticnet")
    await agent.attachments.detach("web")
    await settled()
    await agent.stop()
    deleting = encode_network(replace(network, state=NetworkState.DELETING))
    await cluster.transact([], [Put(key=keys.network_key(network.name), value=deleting)])
    again = await start_agent(cluster=cluster, kernel=agent.kernel)
    assert "staticnet" not in [n.name for n in again.networks.list()]
    assert not again.kernel.links
    assert {key for key in again.records() if network.id in key} == set()
    assert keys.number_key(4097) not in again.records()


async def test_the_predefined_networks_are_there_from_the_start_and_stay_the_same(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    before = agent.networks.list()
    assert [(n.name, n.driver, n.has_endpoints) for n in before] == [
        ("bridge", "bridge", True),
        ("host", "host", False),
        ("none", "null", False),
    ]
    await agent.stop()
    again = await start_agent(cluster=cluster)
    assert again.networks.list() == before


async def test_creation_and_removal_are_told(agent: Agent) -> None:
    await agent.create_network()
    await remove(agent)
    assert [(e.action, e.attributes["name"]) for e in agent.events.recent()] == [
        ("create", "staticnet"),
        ("destroy", "staticnet"),
    ]


async def test_a_stopped_container_does_not_hold_a_network_back(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.services.network_removal.REMOVE_PATIENCE_S", 1)
    await agent.create_network()
    endpoint = await agent.attach("web", "staticnet", ip="192.168.0.2")
    await agent.endpoints.detach([endpoint], keep_fixed=True)
    await settled()
    assert agent.records(keys.ADDRESSES)
    await remove(agent)
    await settled()
    assert not agent.kernel.links
    assert not agent.records(keys.ADDRESSES)


async def test_a_block_length_also_counts_where_the_subnet_is_chosen(agent: Agent) -> None:
    network = await agent.create_network("wide", subnets=(), host_prefix=26)
    assert network.subnets[0].block_length == 26
    with pytest.raises(InvalidRequest, match="invalid host prefix /26: the network lives on one host"):
        await agent.create_network("app", driver="bridge", subnets=(), host_prefix=26)


async def test_a_network_made_again_under_the_name_of_a_removed_one_is_another(agent: Agent) -> None:
    before = await agent.create_network()
    await agent.attach("web", "staticnet")
    await agent.attachments.detach("web")
    await settled()
    await remove(agent)
    after = await agent.create_network(subnets=("10.44.0.0/16",))
    assert after.id != before.id
    assert str((await agent.attach("web", "staticnet")).address_of(4)) == "10.44.1.1"
    await settled()
    assert {block.network_id for block in agent.context.snapshot().blocks} == {after.id}
    assert agent.networks.find("staticnet").id == after.id
