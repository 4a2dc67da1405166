"""Containers added to networks and taken off them while they go on running."""

import asyncio
import errno
from dataclasses import replace
from typing import Any

import pytest

from netagent.errors import AlreadyExists, Conflict, InvalidRequest, KernelRejected, NetagentError, NotFound
from netagent.model.container import ContainerKind
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.services.requests import Connection, NewConnection, NewContainer
from netagent.store.memory import MemoryStore
from tests.support.agent import Agent, settled
from tests.unit.services.conftest import StartAgent

REFUSAL = KernelRejected("an operation", errno.ENOBUFS, "no buffer space")


@pytest.fixture
async def online(agent: Agent) -> Agent:
    """An agent with two overlays in its kernel and the running container ``web`` in the first."""
    await agent.create_network("first", subnets=("192.168.0.0/16",))
    await agent.create_network("second", subnets=("10.9.0.0/16",))
    await agent.attach("elsewhere", "second")
    await run(agent, "web", "first")
    await settled()
    return agent


async def run(agent: Agent, name: str, *networks: str, **wishes: Any) -> None:
    connection = Connection(networks=networks, **wishes)
    await agent.containers.create(NewContainer(name=name, command=("sleep",), connection=connection))
    await agent.containers.start(name)


def rows(agent: Agent, name: str = "web") -> dict[str, Endpoint]:
    """Return a container's endpoints by interface."""
    found = (e for e in agent.journal.endpoints.values() if e.container_name == name)
    return {e.interface: e for e in sorted(found, key=lambda e: e.interface)}


async def connect(agent: Agent, network: str, container: str = "web", **wishes: Any) -> str:
    return await agent.connections.connect(NewConnection(network=network, container=container, **wishes))


def default_routes(agent: Agent, sandbox: str) -> list[str]:
    found = (r for r in agent.kernel.routes.values() if r.where == sandbox and r.destination.prefixlen == 0)
    return [r.device for r in found]


async def test_a_running_container_gets_the_next_interface_and_keeps_its_default_route(online: Agent) -> None:
    assert await connect(online, "second", addresses=("10.9.0.7",), aliases=("db",), mac="02:00:00:00:00:07") == "eth1"
    new = rows(online)["eth1"]
    assert (str(new.address_of(4)), new.aliases, new.mac) == ("10.9.0.7", ("db",), "02:00:00:00:00:07")
    assert new.state is EndpointState.ATTACHED
    assert default_routes(online, new.sandbox) == ["eth0"]
    await settled()
    assert not await online.engine.reconcile()


async def test_connecting_and_disconnecting_leaves_everything_as_before(online: Agent) -> None:
    before = online.picture()
    await connect(online, "second", addresses=("10.9.0.7",))
    await settled()
    assert online.picture() != before
    await online.connections.disconnect("second", "web")
    await settled()
    assert online.picture() == before


async def test_a_freed_interface_name_is_the_next_one_given(online: Agent) -> None:
    await online.create_network("third", subnets=("10.10.0.0/16",))
    await connect(online, "second")
    await connect(online, "third")
    await online.connections.disconnect("second", "web")
    assert list(rows(online)) == ["eth0", "eth2"]
    assert await connect(online, "second") == "eth1"


async def test_the_default_route_moves_to_the_next_network_when_its_own_is_left(online: Agent) -> None:
    await connect(online, "second")
    sandbox = rows(online)["eth0"].sandbox
    await online.connections.disconnect("first", "web")
    assert default_routes(online, sandbox) == ["eth1"]
    assert rows(online)["eth1"].ways_out == (4,)
    await settled()
    assert not await online.engine.reconcile()


async def test_a_container_of_an_internal_network_gets_its_way_out_by_the_next(online: Agent) -> None:
    await online.create_network("inner", subnets=("10.11.0.0/16",), internal=True)
    await run(online, "db", "inner")
    sandbox = rows(online, "db")["eth0"].sandbox
    assert default_routes(online, sandbox) == []
    await connect(online, "second", "db")
    assert default_routes(online, sandbox) == ["eth1"]


async def test_a_container_may_leave_its_last_network_and_come_back(online: Agent) -> None:
    await online.connections.disconnect("first", "web")
    assert not rows(online)
    assert await connect(online, "second") == "eth0"
    assert default_routes(online, rows(online)["eth0"].sandbox) == ["eth0"]


async def test_stop_and_start_keep_the_connections_and_the_fixed_address(online: Agent) -> None:
    await connect(online, "second", addresses=("10.9.0.7",), aliases=("db",))
    await stop(online)
    assert {e.state for e in rows(online).values()} == {EndpointState.DORMANT}
    await online.containers.start("web")
    kept = rows(online)["eth1"]
    assert (str(kept.address_of(4)), kept.aliases, kept.state) == ("10.9.0.7", ("db",), EndpointState.ATTACHED)
    assert default_routes(online, kept.sandbox) == ["eth0"]


async def stop(agent: Agent, name: str = "web") -> None:
    stopping = asyncio.ensure_future(agent.containers.stop(name))
    await settled()
    await stopping


async def test_a_stopped_container_is_connected_with_its_next_start_and_holds_the_address_until_then(
    online: Agent,
) -> None:
    await stop(online)
    assert await connect(online, "second", addresses=("10.9.0.7",)) == "eth1"
    with pytest.raises(Conflict, match=r"Address already in use: 10\.9\.0\.7"):
        await online.attach("thief", "second", ip="10.9.0.7")
    await online.containers.start("web")
    assert str(rows(online)["eth1"].address_of(4)) == "10.9.0.7"
    await settled()
    assert not await online.engine.reconcile()


async def test_a_stopped_container_can_be_disconnected(online: Agent) -> None:
    await stop(online)
    await online.connections.disconnect("first", "web")
    assert not rows(online)
    await online.containers.start("web")
    assert not rows(online)


async def test_an_attached_namespace_is_connected_and_outlives_its_last_network(
    online: Agent, start_agent: StartAgent
) -> None:
    assert await connect(online, "first", "elsewhere") == "eth1"
    await online.connections.disconnect("first", "elsewhere")
    await online.connections.disconnect("second", "elsewhere")
    await online.attachments.recover()
    assert await connect(online, "second", "elsewhere") == "eth0"
    await online.connections.disconnect("second", "elsewhere")
    await online.kernel.delete_sandbox("/run/netns/elsewhere")
    await online.attachments.recover()
    with pytest.raises(NotFound):
        online.containers.find("elsewhere")


REFUSED: dict[str, tuple[dict[str, Any], type[NetagentError], str]] = {
    "twice": ({"network": "first"}, AlreadyExists, "endpoint with name web already exists in network first"),
    "host": (
        {"network": "host"},
        Conflict,
        "cannot connect container to host network - container must be created in host network mode",
    ),
    "none": (
        {"network": "none"},
        Conflict,
        r"container cannot be connected to multiple networks with one of the networks in private \(none\) mode",
    ),
    "container-in-host-mode": (
        {"network": "second", "container": "hosted"},
        Conflict,
        "container sharing network namespace with another container or host cannot be connected to any other network",
    ),
    "container-in-container-mode": (
        {"network": "second", "container": "joined"},
        Conflict,
        "container sharing network namespace with another container or host cannot be connected to any other network",
    ),
    "container-in-none-mode": (
        {"network": "second", "container": "alone"},
        Conflict,
        r"container cannot be connected to multiple networks with one of the networks in private \(none\) mode",
    ),
    "no-network": ({"network": "nope"}, NotFound, "network nope not found"),
    "no-container": ({"network": "second", "container": "nope"}, NotFound, "No such container: nope"),
    "address-outside": (
        {"network": "second", "addresses": ("10.1.1.1",)},
        InvalidRequest,
        "no configured subnet contains IP address 10.1.1.1",
    ),
    "address-on-bridge": (
        {"network": "bridge", "addresses": ("172.16.0.9",)},
        InvalidRequest,
        "user specified IP address is supported on user defined networks only",
    ),
    "alias-on-bridge": (
        {"network": "bridge", "aliases": ("x",)},
        InvalidRequest,
        "network-scoped aliases are only supported for user-defined networks",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_connected_is_refused_in_dockers_words_and_nothing_changes(
    online: Agent, case: str
) -> None:
    await run(online, "hosted", "host")
    await run(online, "joined", "container:web")
    await run(online, "alone", "none")
    wishes, kind, words = REFUSED[case]
    before = online.picture()
    with pytest.raises(kind, match=words):
        await connect(online, **wishes)
    await settled()
    assert online.picture() == before


async def test_disconnecting_what_is_not_connected_is_refused_unless_forced(online: Agent) -> None:
    web = online.containers.find("web")
    with pytest.raises(Conflict, match=f"container {web.id} is not connected to network second"):
        await online.connections.disconnect("second", "web")
    with pytest.raises(NotFound, match="No such container: nope"):
        await online.connections.disconnect("second", "nope")
    await online.connections.disconnect("second", "web", force=True)
    await online.connections.disconnect("second", "nope", force=True)


async def test_a_container_in_host_mode_cannot_leave_it(online: Agent) -> None:
    await run(online, "hosted", "host")
    with pytest.raises(Conflict, match="cannot disconnect container from host network"):
        await online.connections.disconnect("host", "hosted")


async def test_a_runtimes_own_container_is_left_to_it(online: Agent) -> None:
    await online.attach("pod", "first", kind=ContainerKind.CNI, container_id="cni-1")
    with pytest.raises(Conflict, match="connected by its runtime through CNI"):
        await connect(online, "second", "pod")
    with pytest.raises(Conflict, match="connected by its runtime through CNI"):
        await online.connections.disconnect("first", "pod")


@pytest.mark.parametrize("step", range(2))
async def test_a_kernel_that_refuses_leaves_nothing_of_a_connection(online: Agent, step: int) -> None:
    before = online.picture()
    online.kernel.rearm({step: REFUSAL})
    with pytest.raises(KernelRejected):
        await connect(online, "second")
    online.kernel.rearm({})
    await settled()
    assert online.picture() == before


async def test_one_network_asked_for_twice_at_once_is_connected_once(online: Agent) -> None:
    results = await asyncio.gather(*(connect(online, "second") for _ in range(2)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists", "str"]
    assert list(rows(online)) == ["eth0", "eth1"]


@pytest.mark.parametrize("state", [EndpointState.ATTACHING, EndpointState.DETACHING])
async def test_a_connection_that_a_crash_cut_short_is_gone_after_the_restart(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore, state: EndpointState
) -> None:
    await connect(online, "second", addresses=("10.9.0.7",))
    online.journal.put_endpoints([replace(rows(online)["eth1"], state=state)])
    await online.stop()
    again = await start_agent(
        cluster=cluster, kernel=online.kernel, runtime=online.runtime, reservations=online.reservations
    )
    assert list(rows(again)) == ["eth0"]
    assert await connect(again, "second", addresses=("10.9.0.7",)) == "eth1"
    await settled()
    assert not await again.engine.reconcile()


async def test_the_default_route_follows_the_priority_through_connect_and_disconnect(online: Agent) -> None:
    sandbox = rows(online)["eth0"].sandbox
    await connect(online, "second", gw_priority=5)
    assert default_routes(online, sandbox) == ["eth1"]
    assert [row.ways_out for row in rows(online).values()] == [(), (4,)]
    assert not await online.engine.reconcile()
    await online.create_network("third", subnets=("10.10.0.0/16",))
    await connect(online, "third", gw_priority=4)
    assert default_routes(online, sandbox) == ["eth1"]
    await online.connections.disconnect("second", "web")
    assert default_routes(online, sandbox) == ["eth2"]
    await stop(online)
    await online.containers.start("web")
    assert default_routes(online, sandbox) == ["eth2"]
    await online.connections.disconnect("third", "web")
    assert default_routes(online, sandbox) == ["eth0"]
    await settled()
    assert not await online.engine.reconcile()


async def test_of_equal_priorities_the_first_name_wins_as_in_docker(online: Agent) -> None:
    await online.create_network("early", subnets=("10.10.0.0/16",))
    await connect(online, "early")
    assert default_routes(online, rows(online)["eth0"].sandbox) == ["eth1"]


async def test_a_failed_connect_gives_the_default_route_back(online: Agent) -> None:
    before = online.picture()
    online.kernel.refused = "announce"
    with pytest.raises(KernelRejected):
        await connect(online, "second", gw_priority=5)
    online.kernel.refused = ""
    await settled()
    assert default_routes(online, rows(online)["eth0"].sandbox) == ["eth0"]
    assert online.picture() == before


async def test_an_agent_killed_while_connecting_gives_the_default_route_back(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    await connect(online, "second", gw_priority=5)
    half = replace(rows(online)["eth1"], state=EndpointState.ATTACHING)
    online.journal.put_endpoints([half])
    await online.stop()
    again = await start_agent(cluster=cluster, kernel=online.kernel, runtime=online.runtime)
    assert list(rows(again)) == ["eth0"]
    assert rows(again)["eth0"].ways_out == (4,)
    assert default_routes(again, rows(again)["eth0"].sandbox) == ["eth0"]


async def test_a_mac_address_is_had_once_in_a_network(online: Agent) -> None:
    mac = "02:00:00:00:00:07"
    await connect(online, "second", mac=mac)
    before = online.picture()
    with pytest.raises(Conflict, match=r"MAC address 02:00:00:00:00:07 is already in use in network second by"):
        await run(online, "thief", "second", mac=mac)
    assert online.picture() == before
    await run(online, "honest", "first", mac=mac)
    await stop(online)
    with pytest.raises(Conflict, match="by container web"):
        await run(online, "thief", "second", mac=mac)
    await online.containers.start("web")
    assert rows(online)["eth1"].mac == mac


async def test_the_long_form_of_network_gives_each_its_own_address_and_priority(online: Agent) -> None:
    await run(online, "db", "first", "name=second,ip=10.9.0.9,alias=store,gw-priority=1")
    one, two = rows(online, "db").values()
    assert (one.aliases, one.ways_out) == ((), ())
    assert (str(two.address_of(4)), two.aliases, two.ways_out) == ("10.9.0.9", ("store",), (4,))
