"""Attaching and detaching: what is decided, what is refused, and that a failure leaves nothing behind."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from netagent.errors import (
    AlreadyExists,
    Conflict,
    Exhausted,
    InvalidRequest,
    KernelRejected,
    NetagentError,
    NotFound,
    Unavailable,
)
from netagent.kernel.fake import FakeReservations
from netagent.model.address import derive_mac, parse_address
from netagent.model.container import ContainerKind
from netagent.model.endpoint import EndpointState
from netagent.services.requests import Attachment, Connection
from netagent.services.wanted import wanted_again
from netagent.store import keys
from netagent.store.memory import MemoryStore
from tests.support.agent import ATTACH_STEPS, EPHEMERAL, Agent, settled
from tests.unit.services.conftest import StartAgent


@pytest.fixture
async def online(agent: Agent) -> Agent:
    """An agent that has a block of the overlay ``staticnet`` in its kernel."""
    await agent.create_network()
    await agent.attach("first", "staticnet")
    await settled()
    return agent


async def test_an_endpoint_has_an_address_of_the_hosts_block_and_is_in_kernel_journal_and_store(online: Agent) -> None:
    endpoint = await online.attach("web", "staticnet", publish=("4000:80",))
    await settled()
    assert str(endpoint.address_of(4)) == "192.168.1.2"
    assert endpoint.state is EndpointState.ATTACHED
    assert online.journal.endpoints[endpoint.id] == endpoint
    assert endpoint.mac == derive_mac("endpoint", endpoint.id)
    assert keys.endpoint_key(online.host.id, endpoint.network_id, endpoint.id) in online.records()
    assert not await online.engine.reconcile()


async def test_of_the_addresses_given_back_the_one_that_rested_longest_is_given_first(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    await online.create_network("tiny", driver="bridge", subnets=("10.0.0.0/29",))
    given = [str((await online.attach(f"t{n}", "tiny")).address_of(4)) for n in range(5)]
    assert given == [f"10.0.0.{n}" for n in range(2, 7)]
    await online.attachments.detach("t3")
    await online.attachments.detach("t0")
    await online.stop()
    again = await start_agent(cluster=cluster, kernel=online.kernel)
    assert str((await again.attach("u0", "tiny")).address_of(4)) == "10.0.0.5"
    assert str((await again.attach("u1", "tiny")).address_of(4)) == "10.0.0.2"
    with pytest.raises(Exhausted, match="no available addresses on this pool: network tiny"):
        await again.attach("u2", "tiny")


async def test_detaching_puts_everything_back(online: Agent) -> None:
    before = online.picture()
    await online.attach("web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    assert online.picture() != before
    await online.attachments.detach("web")
    await settled()
    assert online.picture() == before


async def test_what_happened_is_told(online: Agent) -> None:
    await online.attach("web", "staticnet")
    await online.attachments.detach("web")
    told = [(e.action, e.attributes["container"], e.attributes["addresses"]) for e in online.events.recent()[-2:]]
    assert told == [("connect", "web", "192.168.1.2"), ("disconnect", "web", "192.168.1.2")]


async def test_a_hundred_attaches_at_once_give_a_hundred_addresses_and_claim_one_block(agent: Agent) -> None:
    network = await agent.create_network()
    endpoints = await asyncio.gather(*(agent.attach(f"c{n}", "staticnet") for n in range(100)))
    counts = Counter(endpoint.address_of(4) for endpoint in endpoints)
    assert len(counts) == 100
    assert [str(block.prefix) for block in agent.context.snapshot().blocks_in(network.id)] == ["192.168.1.0/24"]
    assert not await agent.engine.reconcile()


async def test_one_fixed_address_asked_for_twice_at_once_is_given_once(online: Agent) -> None:
    attempts = (online.attach(name, "staticnet", ip="192.168.1.77") for name in ("a", "b"))
    results = await asyncio.gather(*attempts, return_exceptions=True)
    refused = [r for r in results if isinstance(r, BaseException)]
    assert len(refused) == 1
    assert isinstance(refused[0], Conflict)
    assert len(online.journal.endpoints) == 2


async def test_one_port_asked_for_twice_at_once_is_given_once(online: Agent) -> None:
    attempts = (online.attach(name, "staticnet", publish=("4000:80",)) for name in ("a", "b"))
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["Conflict", "Endpoint"]
    assert len(online.reservations.held) == 1


async def test_a_fixed_address_that_another_host_was_quicker_to_claim_leaves_nothing(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    other = await start_agent(2, cluster=cluster)
    await other.attach("theirs", "staticnet")
    await settled()
    pictures = online.picture(), other.picture()
    # Neither has heard of the other's claim when it makes its own.
    attempts = [agent.attach("web", "staticnet", ip="192.168.0.2", publish=("4000:80",)) for agent in (online, other)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    lost = next(n for n, result in enumerate(results) if isinstance(result, BaseException))
    with pytest.raises(Conflict, match=r"Address already in use: 192\.168\.0\.2 in network staticnet"):
        raise results[lost]  # type: ignore[misc]
    await settled()
    loser, winner = ((online, other), (other, online))[lost]
    before, after = pictures[lost], loser.picture()
    assert (after.endpoints, after.containers, after.ports) == (before.endpoints, before.containers, before.ports)
    await winner.attachments.detach("web")
    await settled()
    assert (online.picture(), other.picture()) == pictures


@pytest.mark.parametrize("step", ATTACH_STEPS)
async def test_a_kernel_that_refuses_any_operation_leaves_journal_ports_store_and_kernel_as_before(
    online: Agent, step: str
) -> None:
    before = online.picture()
    online.kernel.refused = step
    with pytest.raises(KernelRejected):
        await online.attach("web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    assert online.picture() == before
    online.kernel.refused = ""
    endpoint = await online.attach("web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    assert endpoint.state is EndpointState.ATTACHED


async def test_a_second_network_that_fails_takes_the_first_along(online: Agent) -> None:
    await online.create_network("app", driver="bridge", subnets=("10.55.0.0/24",))
    await online.attach("other", "app")
    await settled()
    before = online.picture()
    online.kernel.refused = "address add 10.55.0."
    with pytest.raises(KernelRejected):
        await online.attach("web", "staticnet", "app")
    await settled()
    assert online.picture() == before


async def test_what_the_kernel_refuses_to_take_down_is_pruned_later(online: Agent) -> None:
    await settled()
    before = online.picture()
    await online.attach("web", "staticnet")
    online.kernel.refused = "link delete"
    await online.attachments.detach("web")
    assert online.picture().kernel != before.kernel
    online.kernel.refused = ""
    await settled()
    assert online.picture() == before


async def test_without_the_store_a_network_with_a_block_goes_on(online: Agent, cluster: MemoryStore) -> None:
    await cluster.disconnect()
    endpoint = await online.attach("web", "staticnet", publish=("4000:80",))
    inside = await online.attach("fixed", "staticnet", ip="192.168.1.77")
    await online.attachments.detach("web")
    assert (str(endpoint.address_of(4)), str(inside.address_of(4))) == ("192.168.1.2", "192.168.1.77")


@pytest.mark.parametrize("wish", [{"ip": "192.168.0.2"}, {"ip": "192.168.77.7"}], ids=["reserved", "free block"])
async def test_without_the_store_a_fixed_address_outside_the_block_says_so_and_leaves_nothing(
    online: Agent, cluster: MemoryStore, wish: dict[str, str]
) -> None:
    before = online.picture()
    await cluster.disconnect()
    with pytest.raises(Unavailable):
        await online.attach("web", "staticnet", publish=("4000:80",), **wish)  # type: ignore[arg-type]
    await settled()
    assert online.picture() == before


async def test_without_the_store_a_network_without_a_block_says_so(agent: Agent, cluster: MemoryStore) -> None:
    await agent.create_network()
    before = agent.picture()
    await cluster.disconnect()
    with pytest.raises(Unavailable):
        await agent.attach("web", "staticnet")
    assert agent.picture() == before


async def test_a_port_of_another_container_is_refused_by_its_name(online: Agent) -> None:
    await online.attach("web", "staticnet", publish=("4000:80",))
    with pytest.raises(Conflict) as caught:
        await online.attach("api", "staticnet", publish=("4000:8080",))
    assert caught.value.message == "Bind for 0.0.0.0:4000 failed: port is already allocated"
    assert caught.value.hint == "container web has it; choose another host port"
    with pytest.raises(Conflict, match=r"Bind for 127\.0\.0\.1:4000 failed: port is already allocated"):
        await online.attach("api", "staticnet", publish=("127.0.0.1:4000:8080",))


async def test_a_port_of_a_host_process_is_refused_and_the_others_are_let_go(start_agent: StartAgent) -> None:
    agent = await start_agent(reservations=FakeReservations(frozenset({("tcp", 4001)})))
    with pytest.raises(Conflict, match=r"failed to bind host port 0\.0\.0\.0:4001/tcp"):
        await agent.attach("web", publish=("4000:80", "4001:81"))
    assert agent.reservations.held == set()
    assert not agent.journal.containers


async def test_one_port_on_two_addresses_is_two_ports(online: Agent) -> None:
    await online.attach("web", "staticnet", publish=("127.0.0.1:4000:80",))
    await online.attach("api", "staticnet", publish=("127.0.0.2:4000:80", "4000:80/udp"))
    assert len(online.reservations.held) == 3


async def test_automatic_ports_climb_skip_taken_ones_and_run_out(start_agent: StartAgent) -> None:
    first, last = EPHEMERAL
    agent = await start_agent(reservations=FakeReservations(frozenset({("tcp", first + 1)})))
    endpoint = await agent.attach("web", publish=("80", "81"))
    assert [port.host_port for port in endpoint.ports] == [first, first + 2]
    await agent.attachments.detach("web")
    endpoint = await agent.attach("api", publish=("80",))
    assert [port.host_port for port in endpoint.ports] == [first + 3]
    with pytest.raises(Exhausted, match="all ports are allocated"):
        await agent.attach("many", publish=(f"80-{80 + last - first}",))
    assert len(agent.reservations.held) == 1


async def test_a_bridge_takes_as_many_containers_as_it_has_ports(
    online: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.services.endpoints.BRIDGE_PORT_LIMIT", 2)
    await online.attach("web", "staticnet")
    with pytest.raises(Exhausted, match="network staticnet has 2 containers here, all that a bridge takes"):
        await online.attach("api", "staticnet")
    await online.attachments.detach("web")
    await online.attach("api", "staticnet")


async def test_the_bridge_limit_holds_against_attaches_at_once(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.services.endpoints.BRIDGE_PORT_LIMIT", 2)
    await agent.create_network()
    results = await asyncio.gather(*(agent.attach(f"c{n}", "staticnet") for n in range(4)), return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["Endpoint", "Endpoint", "Exhausted", "Exhausted"]


async def test_an_address_that_was_just_released_is_not_given_again_at_once(online: Agent) -> None:
    given = []
    for _ in range(3):
        endpoint = await online.attach("web", "staticnet")
        given.append(str(endpoint.address_of(4)))
        await online.attachments.detach("web")
    assert given == ["192.168.1.2", "192.168.1.3", "192.168.1.4"]


async def test_both_families_get_an_address(agent: Agent) -> None:
    await agent.create_network("dual", subnets=("10.55.0.0/16", "fd00:55::/64"))
    endpoint = await agent.attach("web", "dual", ip="fd00:55::7")
    assert [(str(a.address), a.fixed) for a in endpoint.addresses] == [("10.55.1.1", False), ("fd00:55::7", True)]


BAD = [
    ({"networks": ("nowhere",)}, NotFound, "network nowhere not found"),
    ({"networks": ("host",)}, InvalidRequest, "network host gives no interface"),
    ({"networks": ("staticnet", "staticnet")}, InvalidRequest, "the same network is given twice"),
    (
        {"addresses": ("172.16.0.9",)},
        InvalidRequest,
        "user specified IP address is supported on user defined networks only",
    ),
    ({"aliases": ("db",)}, InvalidRequest, "network-scoped aliases are only supported for user-defined networks"),
    (
        {"networks": ("staticnet",), "addresses": ("192.168.1.7", "192.168.1.8")},
        InvalidRequest,
        "more than one --ip of the same family",
    ),
    (
        {"networks": ("staticnet",), "addresses": ("10.9.9.9",)},
        InvalidRequest,
        "no configured subnet contains IP address 10.9.9.9",
    ),
    (
        {"networks": ("staticnet",), "addresses": ("192.168.0.1",)},
        Conflict,
        "Address already in use: 192.168.0.1 is the gateway of network staticnet",
    ),
    (
        {"networks": ("staticnet",), "mac": "01:00:5e:00:00:01"},
        InvalidRequest,
        "invalid MAC address '01:00:5e:00:00:01'",
    ),
    ({"networks": ("staticnet",), "aliases": ("a b",)}, InvalidRequest, "invalid alias name 'a b'"),
    ({"publish": ("80:80/icmp",)}, InvalidRequest, "invalid proto: icmp"),
]


@pytest.mark.parametrize(("wish", "error", "message"), BAD, ids=[message for _, _, message in BAD])
async def test_bad_wishes_are_refused_before_anything_changes(
    online: Agent, wish: dict[str, Any], error: type[NetagentError], message: str
) -> None:
    await online.kernel.create_sandbox("/run/netns/web")
    before = online.picture()
    with pytest.raises(error) as caught:
        await online.attachments.attach(Attachment(name="web", netns="/run/netns/web", connection=Connection(**wish)))
    assert caught.value.message == message
    assert online.picture() == before


async def test_a_namespace_that_is_none_is_refused(online: Agent) -> None:
    before = online.picture()
    with pytest.raises(NotFound, match="/run/netns/none does not exist"):
        await online.attachments.attach(
            Attachment(name="web", netns="/run/netns/none", connection=Connection(networks=("staticnet",)))
        )
    with pytest.raises(InvalidRequest, match="invalid network namespace 'relative/path'"):
        await online.attachments.attach(Attachment(name="web", netns="relative/path"))
    assert online.picture() == before


async def test_a_name_can_be_had_once(online: Agent) -> None:
    await online.attach("web", "staticnet")
    before = online.picture()
    with pytest.raises(AlreadyExists, match='The container name "web" is already in use by container "1'):
        await online.attach("web", "staticnet")
    assert online.picture() == before


async def test_one_name_asked_for_twice_at_once_is_given_once(online: Agent) -> None:
    attempts = (online.attach("web", "staticnet") for _ in range(2))
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["AlreadyExists", "Endpoint"]
    assert len(online.journal.endpoints) == 2


async def test_a_runtimes_container_takes_interfaces_one_by_one_and_gives_them_back_one_by_one(online: Agent) -> None:
    await online.create_network("app", driver="bridge", subnets=("10.55.0.0/24",))
    await online.create_network("new", driver="bridge", subnets=("10.56.0.0/24",))
    before = online.picture()
    cni: dict[str, Any] = {"kind": ContainerKind.CNI, "container_id": "pod1"}
    await online.attach("pod", "staticnet", interface="eth0", **cni)
    with pytest.raises(AlreadyExists, match="interface eth0 of container pod is attached already"):
        await online.attach("pod", "app", interface="eth0", **cni)
    await online.attach("pod", "app", interface="net1", **cni)
    assert len(online.journal.containers) == 2
    results = await asyncio.gather(
        *(online.attach("pod", "new", interface="net2", **cni) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(r).__name__ for r in results) == ["AlreadyExists", "Endpoint"]
    await online.attachments.detach_interface("pod1", "net2", None)
    await online.attachments.detach_interface("pod1", "net1", None)
    await online.attachments.detach_interface("pod1", "net1", None)
    await online.attachments.detach_interface("pod1", "eth0", online.networks.find("app").id)
    assert [e.interface for e in online.journal.endpoints.values()] == ["eth0", "eth0"]
    await online.attachments.detach_interface("pod1", "eth0", online.networks.find("staticnet").id)
    await online.attachments.detach_interface("stranger", "eth0", None)
    await settled()
    after = online.picture()
    assert (after.endpoints, after.containers) == (before.endpoints, before.containers)


async def test_one_name_of_two_runtimes_at_once_is_given_once(agent: Agent) -> None:
    await agent.create_network()
    attempts = (
        agent.attach("pod", "staticnet", kind=ContainerKind.CNI, container_id=f"pod{n}", interface=f"eth{n}")
        for n in range(2)
    )
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["AlreadyExists", "Endpoint"]
    assert len(agent.journal.endpoints) == len(agent.journal.containers) == 1


async def test_a_sleeping_endpoint_that_cannot_be_woken_sleeps_on(online: Agent) -> None:
    endpoint = await online.attach("web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await online.endpoints.detach([endpoint], keep_fixed=True)
    await settled()
    before = online.picture()
    (container,) = (c for c in online.journal.containers.values() if c.name == "web")
    (sleeper,) = (e for e in online.journal.endpoints.values() if e.container_name == "web")
    wanted = wanted_again(sleeper, online.networks.find("staticnet"))
    online.kernel.refused = "link add"
    with pytest.raises(KernelRejected):
        await online.endpoints.attach(container, [wanted])
    await settled()
    assert online.picture() == before
    online.kernel.refused = ""
    (awake,) = await online.endpoints.attach(container, [wanted])
    assert (awake.id, str(awake.address_of(4)), awake.mac) == (endpoint.id, "192.168.0.2", endpoint.mac)


@pytest.mark.parametrize("state", [EndpointState.ATTACHING, EndpointState.DETACHING])
async def test_an_attachment_that_a_crash_left_half_done_is_gone_after_the_start(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore, state: EndpointState
) -> None:
    before = online.picture()
    endpoint = await online.attach("web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    online.journal.put_endpoints([replace(endpoint, state=state)])
    await online.stop()
    again = await start_agent(cluster=cluster, kernel=online.kernel)
    assert again.picture() == before


async def test_an_attachment_whose_namespace_went_while_the_agent_was_away_is_gone(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    before = online.picture()
    endpoint = await online.attach("web", "staticnet", publish=("4000:80",))
    await online.stop()
    await online.kernel.delete_sandbox(endpoint.sandbox)
    again = await start_agent(cluster=cluster, kernel=online.kernel)
    assert again.picture() == before


async def test_a_restart_changes_nothing(online: Agent, start_agent: StartAgent, cluster: MemoryStore) -> None:
    await online.attach("web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    before = online.picture()
    await online.stop()
    online.kernel.applied.clear()
    again = await start_agent(cluster=cluster, kernel=online.kernel)
    assert again.picture() == before
    assert [str(operation) for operation in online.kernel.applied] == [
        "conntrack flush ipv4 *:4000/tcp not to 192.168.0.2:80"
    ]
    with pytest.raises(Conflict, match="port is already allocated"):
        await again.attach("api", "staticnet", publish=("4000:80",))
    assert str((await again.attach("api", "staticnet")).address_of(4)) == "192.168.1.2"


async def test_a_start_without_the_store_goes_on_with_what_was_last_heard(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    await online.attach("web", "staticnet", publish=("4000:80",))
    await settled()
    before = online.picture()
    await online.stop()
    await cluster.disconnect()
    again = await start_agent(cluster=cluster, kernel=online.kernel)
    assert again.picture() == before
    assert parse_address("192.168.1.3") == (await again.attach("api", "staticnet")).address_of(4)


async def test_a_start_asks_once_for_the_links_of_all_endpoints(online: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thousand endpoints a look at each of them takes longer than all the rest of a start."""
    await online.attach("web", "staticnet")
    asked: list[str] = []

    def counted(name: str) -> None:
        look = getattr(online.kernel, name)

        async def ask(*arguments: object) -> object:
            asked.append(name)
            return await look(*arguments)

        monkeypatch.setattr(online.kernel, name, ask)

    for name in ("own_links", "observe", "observe_endpoint", "sandbox_inode"):
        counted(name)
    await online.attachments.recover()
    assert asked == ["own_links"]
    assert [row.container_name for row in online.journal.endpoints.values()] == ["first", "web"]


async def test_a_late_detach_releases_nothing_of_the_next_owner(online: Agent) -> None:
    await online.attach("web", "staticnet", ip="192.168.0.5")
    await online.attachments.detach("web")
    theirs = await online.attach("api", "staticnet", ip="192.168.0.5")
    await settled()
    before = online.picture()
    with pytest.raises(NotFound):
        await online.attachments.detach("web")
    await online.endpoints.detach(())
    await settled()
    assert online.picture() == before
    assert online.journal.endpoints[theirs.id] == theirs
