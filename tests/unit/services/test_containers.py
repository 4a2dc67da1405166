"""Containers from create to remove, and what a start makes of whatever an earlier agent left."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from netagent.errors import (
    AlreadyExists,
    Conflict,
    EnvironmentProblem,
    InvalidRequest,
    KernelRejected,
    NetagentError,
    NotFound,
)
from netagent.model.container import Container, ContainerState, NetworkMode
from netagent.model.endpoint import EndpointState
from netagent.model.ids import ContainerId
from netagent.runtime.runc import RunStatus
from netagent.services.requests import Connection, NewContainer
from netagent.store.memory import MemoryStore
from tests.support.agent import ATTACH_STEPS, Agent, settled
from tests.unit.services.conftest import StartAgent


def wish(name: str = "web", *networks: str, ip: str = "", publish: tuple[str, ...] = (), **more: Any) -> NewContainer:
    connection = Connection(networks=networks, addresses=(ip,) if ip else (), publish=publish)
    return NewContainer(**{"command": ("sleep", "9"), "name": name, "connection": connection, **more})


@pytest.fixture
async def online(agent: Agent) -> Agent:
    """An agent with an overlay in its kernel."""
    await agent.create_network()
    await agent.attach("first", "staticnet")
    await settled()
    return agent


async def create(agent: Agent, *args: Any, **more: Any) -> Container:
    container, _ = await agent.containers.create(wish(*args, **more))
    return container


async def run(agent: Agent, *args: Any, **more: Any) -> Container:
    container = await create(agent, *args, **more)
    await agent.containers.start(container.name)
    return agent.containers.find(container.id)


def address(agent: Agent, name: str) -> str:
    ((endpoint, _),) = agent.containers.view(name).endpoints
    return str(endpoint.address_of(4))


# A life


async def test_a_created_container_has_its_network_before_its_command_runs(online: Agent) -> None:
    container = await create(online, "web", "staticnet", publish=("4000:80",), hostname="www")
    assert container.state is ContainerState.CREATED
    assert online.runtime.status(container.id) is RunStatus.CREATED
    assert container.sandbox in online.kernel.sandboxes
    assert address(online, "web") == "192.168.1.2"
    assert online.runtime.text(container.id, "/etc/hosts").splitlines()[-1] == "192.168.1.2\twww web"
    assert online.runtime.text(container.id, "/etc/hostname") == "www\n"


async def test_start_exit_wait(online: Agent) -> None:
    container = await run(online, "web", "staticnet")
    assert container.state is ContainerState.RUNNING
    waiting = asyncio.ensure_future(online.containers.wait("web"))
    await settled()
    assert not waiting.done()
    online.runtime.exit(container.id, 3)
    assert await waiting == 3
    rested = online.containers.find("web")
    assert (rested.state, rested.exit_code) == (ContainerState.EXITED, 3)
    assert container.sandbox not in online.kernel.sandboxes
    assert await online.containers.wait("web") == 3
    assert [e.action for e in online.events.recent() if e.type == "container"] == ["create", "start", "die"]


async def test_an_end_that_nobody_saw_is_255(online: Agent) -> None:
    container = await run(online, "web", "staticnet")
    online.runtime.exit(container.id, None)
    assert await online.containers.wait("web") == 255


async def test_starting_what_runs_is_no_error(online: Agent) -> None:
    await run(online, "web", "staticnet")
    calls = list(online.runtime.calls)
    await online.containers.start("web")
    assert online.runtime.calls == calls


async def test_stop_asks_then_kills_and_is_no_error_twice(online: Agent) -> None:
    polite, stubborn = await run(online, "a", "staticnet"), await run(online, "b", "staticnet")
    online.runtime.boxes[stubborn.id].ignores_term = True
    for name in ("a", "a", "b"):
        await online.containers.stop(name, timeout_s=0)
    assert online.containers.find(polite.id).exit_code == 143
    assert online.containers.find(stubborn.id).exit_code == 137


async def test_a_created_container_that_is_stopped_never_ran(online: Agent) -> None:
    container = await create(online, "web", "staticnet")
    await online.containers.stop("web")
    assert online.containers.find("web").state is ContainerState.EXITED
    assert container.sandbox not in online.kernel.sandboxes
    assert online.runtime.status(container.id) is RunStatus.ABSENT


async def test_signals_go_to_what_runs_only(online: Agent) -> None:
    await run(online, "web", "staticnet")
    await online.containers.kill("web", 9)
    assert await online.containers.wait("web") == 137
    with pytest.raises(Conflict, match="container web is not running"):
        await online.containers.kill("web", 9)


async def test_a_stopped_container_keeps_its_fixed_address_and_takes_its_ports_again(online: Agent) -> None:
    await run(online, "web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await online.containers.stop("web")
    await settled()
    (sleeper,) = [e for e in online.journal.endpoints.values() if e.container_name == "web"]
    assert sleeper.state is EndpointState.DORMANT
    assert not online.reservations.held
    with pytest.raises(Conflict, match=r"Address already in use: 192\.168\.0\.2"):
        await online.attach("thief", "staticnet", ip="192.168.0.2")
    await online.containers.start("web")
    assert address(online, "web") == "192.168.0.2"
    assert len(online.reservations.held) == 1
    assert online.containers.find("web").state is ContainerState.RUNNING


async def test_a_stopped_container_gives_its_dynamic_address_up(online: Agent) -> None:
    await run(online, "web", "staticnet")
    await online.containers.stop("web")
    await online.attach("other", "staticnet", ip="192.168.1.2")
    await online.containers.start("web")
    assert address(online, "web") == "192.168.1.3"


async def test_a_fixed_address_in_the_hosts_block_is_held_for_a_stopped_container_too(online: Agent) -> None:
    await run(online, "web", "staticnet", ip="192.168.1.2")
    await online.containers.stop("web")
    assert str((await online.attach("other", "staticnet")).address_of(4)) == "192.168.1.3"
    await online.containers.start("web")
    assert address(online, "web") == "192.168.1.2"


async def test_a_fixed_address_survives_a_start_without_the_store(online: Agent, cluster: MemoryStore) -> None:
    await run(online, "web", "staticnet", ip="192.168.0.2")
    await online.containers.stop("web")
    await cluster.disconnect()
    await online.containers.start("web")
    assert address(online, "web") == "192.168.0.2"


async def test_a_start_whose_port_was_taken_meanwhile_leaves_the_container_at_rest(online: Agent) -> None:
    container = await run(online, "web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await online.containers.stop("web")
    await online.attach("thief", "staticnet", publish=("4000:80",))
    await settled()
    before = online.picture()
    with pytest.raises(Conflict, match="port is already allocated"):
        await online.containers.start("web")
    await settled()
    assert online.picture() == before
    assert container.sandbox not in online.kernel.sandboxes
    await online.attachments.detach("thief")
    await online.containers.start("web")
    assert address(online, "web") == "192.168.0.2"


async def test_a_start_after_the_network_was_removed_says_so(online: Agent) -> None:
    await online.create_network("brief", subnets=("10.55.0.0/16",))
    await run(online, "web", "brief")
    await online.containers.stop("web")
    async for _ in online.network_removal.remove("brief"):
        pass
    with pytest.raises(NotFound) as caught:
        await online.containers.start("web")
    assert caught.value.hint == "netagent rm web"
    await online.containers.remove("web")


async def test_a_command_that_cannot_start_leaves_the_container_exited_with_127(online: Agent) -> None:
    container = await create(online, "web", "staticnet")
    online.runtime.refuse["start"] = InvalidRequest("exec: no such file")
    with pytest.raises(InvalidRequest):
        await online.containers.start("web")
    rested = online.containers.find("web")
    assert (rested.state, rested.exit_code) == (ContainerState.EXITED, 127)
    assert container.sandbox not in online.kernel.sandboxes


# Removing


async def test_removing_leaves_nothing(online: Agent) -> None:
    before = online.picture()
    container = await run(online, "web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    with pytest.raises(Conflict, match="cannot remove container web: container is running"):
        await online.containers.remove("web")
    await online.containers.remove("web", force=True)
    await settled()
    assert online.picture() == before
    assert container.sandbox not in online.kernel.sandboxes
    assert online.runtime.boxes == {}
    with pytest.raises(NotFound, match="No such container: web"):
        online.containers.find("web")


async def test_a_container_that_removes_itself_is_gone_when_it_ends_and_its_status_is_still_known(
    online: Agent,
) -> None:
    before = online.picture()
    container = await run(online, "web", "staticnet", ip="192.168.0.2", auto_remove=True)
    early = asyncio.ensure_future(online.containers.wait("web"))
    await settled()
    online.runtime.exit(container.id, 7)
    assert await early == 7
    await settled()
    assert online.picture() == before
    assert await online.containers.wait(container.id) == 7
    with pytest.raises(NotFound):
        await online.containers.wait("web")


async def test_only_so_many_exit_statuses_are_remembered(online: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.services.containers.EXIT_CODES_KEPT", 2)
    ended = [await run(online, f"c{n}", "host", auto_remove=True) for n in range(3)]
    for code, container in enumerate(ended):
        online.runtime.exit(container.id, code)
        await settled()
    assert [await online.containers.wait(c.id) for c in ended[1:]] == [1, 2]
    with pytest.raises(NotFound):
        await online.containers.wait(ended[0].id)


async def test_stop_and_remove_at_once_agree(online: Agent) -> None:
    before = online.picture()
    await run(online, "web", "staticnet", ip="192.168.0.2")
    await asyncio.gather(online.containers.stop("web"), online.containers.remove("web", force=True))
    await settled()
    assert online.picture() == before


# Failing


@pytest.mark.parametrize("verb", ["create"])
async def test_a_runtime_that_refuses_leaves_nothing(online: Agent, verb: str) -> None:
    before = online.picture()
    online.runtime.refuse[verb] = EnvironmentProblem("no space left")
    with pytest.raises(EnvironmentProblem):
        await create(online, "web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    assert online.picture() == before
    assert online.runtime.boxes == {}
    assert list(online.kernel.sandboxes) == ["/run/netns/first"]


@pytest.mark.parametrize("step", ATTACH_STEPS)
async def test_a_kernel_that_refuses_leaves_nothing(online: Agent, step: str) -> None:
    before = online.picture()
    online.kernel.refused = step
    with pytest.raises(KernelRejected):
        await create(online, "web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    assert online.picture() == before
    assert list(online.kernel.sandboxes) == ["/run/netns/first"]


async def test_a_name_can_be_had_once(online: Agent) -> None:
    container = await create(online, "web", "staticnet")
    with pytest.raises(AlreadyExists) as caught:
        await create(online, "web", "staticnet")
    assert caught.value.message == (
        f'Conflict. The container name "web" is already in use by container "{container.id[:12]}"'
    )


async def test_one_name_asked_for_twice_at_once_is_given_once(online: Agent) -> None:
    results = await asyncio.gather(
        create(online, "web", "staticnet"), create(online, "web", "staticnet"), return_exceptions=True
    )
    assert sorted(type(r).__name__ for r in results) == ["AlreadyExists", "Container"]


# Modes


async def test_without_a_network_a_container_is_on_the_default_bridge(agent: Agent) -> None:
    await create(agent, "web")
    assert address(agent, "web") == "172.16.0.2"


async def test_several_networks_give_several_interfaces(online: Agent) -> None:
    await online.create_network("app", driver="bridge", subnets=("10.55.0.0/24",))
    await create(online, "web", "staticnet", "app")
    rows = online.containers.view("web").endpoints
    assert [(e.interface, network and network.name, e.ways_out) for e, network in rows] == [
        ("eth0", "staticnet", ()),
        ("eth1", "app", (4,)),
    ]


async def test_host_mode_has_no_sandbox_and_discards_ports_with_a_warning(agent: Agent) -> None:
    container, warnings = await agent.containers.create(wish("web", "host", publish=("4000:80",)))
    assert (container.mode, container.sandbox) == (NetworkMode.HOST, "")
    assert warnings == ("Published ports are discarded when using host network mode",)
    assert not agent.journal.endpoints
    assert not agent.reservations.held


async def test_none_mode_has_a_sandbox_of_its_own_and_nothing_in_it(agent: Agent) -> None:
    container = await create(agent, "web", "none")
    assert container.sandbox in agent.kernel.sandboxes
    assert not agent.journal.endpoints
    await agent.containers.remove("web")
    assert container.sandbox not in agent.kernel.sandboxes


async def test_container_mode_shares_sandbox_and_hostname_and_leaves_them_when_it_goes(agent: Agent) -> None:
    owner = await run(agent, "web", hostname="www")
    guest = await run(agent, "side", "container:web")
    assert (guest.sandbox, guest.hostname, guest.shares) == (owner.sandbox, "www", owner.id)
    await agent.containers.remove("side", force=True)
    assert owner.sandbox in agent.kernel.sandboxes


async def test_container_mode_needs_a_running_container(agent: Agent) -> None:
    await run(agent, "web")
    await run(agent, "side", "container:web")
    for name in ("side", "web"):
        await agent.containers.stop(name)
    with pytest.raises(Conflict, match="cannot join network of a non running container: web"):
        await create(agent, "late", "container:web")
    with pytest.raises(Conflict, match="cannot join network of a non running container"):
        await agent.containers.start("side")


REFUSED: list[tuple[dict[str, Any], type[NetagentError], str]] = [
    (
        {"networks": ("none", "bridge")},
        InvalidRequest,
        "container cannot be connected to multiple networks with one of the networks in private (none) mode",
    ),
    (
        {"networks": ("host", "bridge")},
        InvalidRequest,
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
    ),
    (
        {"networks": ("container:first", "bridge")},
        InvalidRequest,
        "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
    ),
    ({"networks": ("container:",)}, InvalidRequest, "--network container: needs a name"),
    ({"networks": ("container:nobody",)}, NotFound, "No such container: nobody"),
    (
        {"networks": ("container:first",), "publish": ("4000:80",)},
        InvalidRequest,
        "conflicting options: port publishing and the container type network mode",
    ),
    *[
        (
            {"networks": (mode,), "addresses": ("10.0.0.2",)},
            InvalidRequest,
            "user specified IP address is supported on user defined networks only",
        )
        for mode in ("host", "none", "container:first")
    ],
    (
        {"networks": ("none",), "aliases": ("db",)},
        InvalidRequest,
        "network-scoped aliases are only supported for user-defined networks",
    ),
    (
        {"networks": ("host",), "mac": "02:00:00:00:00:01"},
        InvalidRequest,
        "conflicting options: mac-address and the network mode",
    ),
    ({"networks": ("nowhere",)}, NotFound, "network nowhere not found"),
    ({"networks": ("staticnet", "staticnet")}, InvalidRequest, "the same network is given twice"),
]


@pytest.mark.parametrize(("connection", "error", "message"), REFUSED, ids=[str(c) for c, _, _ in REFUSED])
async def test_connections_that_make_no_sense_are_refused_before_anything_changes(
    online: Agent, connection: dict[str, Any], error: type[NetagentError], message: str
) -> None:
    before = online.picture()
    with pytest.raises(error) as caught:
        await online.containers.create(wish(connection=Connection(**connection)))
    assert caught.value.message == message
    assert online.picture() == before
    assert online.runtime.calls == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"command": ()}, "no command given"),
        ({"name": "a b"}, "invalid container name 'a b'"),
        ({"rootfs": "/nowhere/at/all"}, "--rootfs /nowhere/at/all is not a directory"),
        ({"environment": ("=x",)}, "invalid environment variable: '=x'"),
        ({"mounts": ("a:b",)}, "'a' is not the absolute path of a host directory"),
        (
            {"hostname": "www", "connection": Connection(networks=("container:first",))},
            "conflicting options: hostname and the network mode",
        ),
    ],
    ids=lambda value: str(value),
)
async def test_bad_options_are_refused_before_anything_changes(
    online: Agent, more: dict[str, Any], message: str
) -> None:
    before = online.picture()
    with pytest.raises(InvalidRequest) as caught:
        await online.containers.create(wish(**more))
    assert caught.value.message == message
    assert online.picture() == before


# Looking


async def test_ps_shows_what_is_up_and_with_all_everything_in_natural_order(online: Agent) -> None:
    for name in ("c10", "c2", "c1"):
        await run(online, name, "host")
    await online.containers.stop("c1")
    assert [v.container.name for v in online.containers.list(everything=False)] == ["c2", "c10", "first"]
    assert [v.container.name for v in online.containers.list(everything=True)] == ["c1", "c2", "c10", "first"]


async def test_a_container_without_a_name_gets_one(agent: Agent) -> None:
    container = await create(agent, "", "host")
    assert container.name == f"c-{container.id[:12]}"
    assert agent.containers.find(container.id[:12]) == container


@pytest.mark.parametrize("verb", ["start", "stop", "wait", "remove"])
async def test_what_others_started_is_theirs(online: Agent, verb: str) -> None:
    with pytest.raises(Conflict, match="was not started by netagent"):
        await getattr(online.containers, verb)("first")
    await create(online, "web", "host")
    with pytest.raises(Conflict, match="container web was started by netagent"):
        await online.attachments.detach("web")


# Starting anew


async def reborn(agent: Agent, start_agent: StartAgent, cluster: MemoryStore) -> Agent:
    """The next life of an agent, with the same kernel and runtime."""
    await agent.stop()
    return await start_agent(cluster=cluster, kernel=agent.kernel, runtime=agent.runtime)


@pytest.mark.parametrize("up", [RunStatus.CREATED, RunStatus.RUNNING])
async def test_a_restart_changes_nothing_for_what_is_up(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore, up: RunStatus
) -> None:
    make = run if up is RunStatus.RUNNING else create
    container = await make(online, "web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    before = online.picture()
    again = await reborn(online, start_agent, cluster)
    assert again.picture() == before
    assert again.runtime.status(container.id) is up
    if up is RunStatus.RUNNING:
        again.runtime.exit(container.id, 5)
        assert await again.containers.wait("web") == 5


FATES: list[tuple[ContainerState, RunStatus, int | None, tuple[ContainerState, int | None] | None]] = [
    # the row, the runtime, its exit status -> what the row says after the start
    (ContainerState.CREATING, RunStatus.ABSENT, None, None),
    (ContainerState.CREATING, RunStatus.CREATED, None, None),
    (ContainerState.CREATED, RunStatus.CREATED, None, (ContainerState.CREATED, None)),
    (ContainerState.CREATED, RunStatus.RUNNING, None, (ContainerState.RUNNING, None)),
    (ContainerState.CREATED, RunStatus.STOPPED, 4, (ContainerState.EXITED, 4)),
    (ContainerState.CREATED, RunStatus.ABSENT, None, (ContainerState.EXITED, 255)),
    (ContainerState.RUNNING, RunStatus.RUNNING, None, (ContainerState.RUNNING, None)),
    (ContainerState.RUNNING, RunStatus.STOPPED, 4, (ContainerState.EXITED, 4)),
    (ContainerState.RUNNING, RunStatus.STOPPED, None, (ContainerState.EXITED, 255)),
    (ContainerState.RUNNING, RunStatus.ABSENT, None, (ContainerState.EXITED, 255)),
    (ContainerState.EXITED, RunStatus.CREATED, None, (ContainerState.EXITED, None)),
    (ContainerState.EXITED, RunStatus.ABSENT, None, (ContainerState.EXITED, None)),
    (ContainerState.REMOVING, RunStatus.RUNNING, None, None),
    (ContainerState.REMOVING, RunStatus.ABSENT, None, None),
]


@pytest.mark.parametrize(("row", "status", "code", "fate"), FATES)
async def test_every_state_that_a_crash_can_leave_is_settled(
    online: Agent,
    start_agent: StartAgent,
    cluster: MemoryStore,
    row: ContainerState,
    status: RunStatus,
    code: int | None,
    fate: tuple[ContainerState, int | None] | None,
) -> None:
    before = online.picture()
    container = await create(online, "web", "staticnet", ip="192.168.0.2", publish=("4000:80",))
    await settled()
    online.journal.put_container(replace(container, state=row))
    online.runtime.put(container.id, status, code)
    again = await reborn(online, start_agent, cluster)
    if fate is None:
        assert again.picture() == before
        assert again.runtime.boxes == {}
        assert list(again.kernel.sandboxes) == ["/run/netns/first"]
        return
    settled_row = again.containers.find("web")
    assert (settled_row.state, settled_row.exit_code) == fate
    is_up = fate[0] is not ContainerState.EXITED
    assert (container.sandbox in again.kernel.sandboxes) is is_up
    assert again.runtime.status(container.id) in ((status,) if is_up else (RunStatus.ABSENT, RunStatus.STOPPED))
    assert bool(again.reservations.held) is is_up
    await again.containers.start("web")
    assert address(again, "web") == "192.168.0.2"


async def test_a_container_that_removes_itself_and_ended_unseen_is_removed_at_the_start(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    before = online.picture()
    container = await run(online, "web", "staticnet", auto_remove=True)
    await online.stop()
    online.runtime.exit(container.id, 1)
    again = await reborn(online, start_agent, cluster)
    after = again.picture()
    assert (after.endpoints, after.containers, after.kernel) == (before.endpoints, before.containers, before.kernel)


async def test_what_the_runtime_has_and_nobody_knows_is_removed(
    online: Agent, start_agent: StartAgent, cluster: MemoryStore
) -> None:
    online.runtime.put(ContainerId("f" * 64), RunStatus.RUNNING)
    again = await reborn(online, start_agent, cluster)
    assert again.runtime.boxes == {}


@pytest.mark.parametrize("mode", ["none", "host"])
async def test_a_start_that_a_crash_interrupted_can_be_repeated(
    agent: Agent, start_agent: StartAgent, cluster: MemoryStore, mode: str
) -> None:
    container = await run(agent, "web", mode)
    await agent.containers.stop("web")
    if container.sandbox:
        await agent.kernel.create_sandbox(container.sandbox)
    agent.runtime.put(container.id, RunStatus.CREATED)
    again = await reborn(agent, start_agent, cluster)
    await again.containers.start("web")
    assert again.containers.find("web").state is ContainerState.RUNNING


async def test_an_end_that_cannot_be_settled_does_not_keep_anybody_waiting(online: Agent) -> None:
    container = await run(online, "web", "staticnet")
    online.runtime.refuse["delete"] = EnvironmentProblem("the cgroup is busy")
    online.runtime.exit(container.id, 3)
    async with asyncio.timeout(30):
        assert await online.containers.wait("web") == 3
