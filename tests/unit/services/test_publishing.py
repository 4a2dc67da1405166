"""Ports published and taken back live, exposed ports, and networks changed while they are in use."""

import errno
from typing import Any

import pytest

from netagent.errors import Conflict, InvalidRequest, KernelRejected, NetagentError, NotFound
from netagent.model.container import ContainerKind
from netagent.model.endpoint import Endpoint
from netagent.plan.names import bridge_name, veth_name
from netagent.services.requests import Connection, NetworkChange, NewContainer
from tests.support.agent import EPHEMERAL, Agent, settled

REFUSAL = KernelRejected("an operation", errno.ENOBUFS, "no buffer space")
FIRST, SECOND = EPHEMERAL[0], EPHEMERAL[0] + 1


@pytest.fixture
async def online(agent: Agent) -> Agent:
    """An agent with the container ``web`` on a dual-stack network, port 80 published."""
    await agent.create_network("app", driver="bridge", subnets=("10.20.0.0/24", "fd00:20::/64"))
    await agent.attach("web", "app", publish=("4000:80",))
    await settled()
    return agent


def row(agent: Agent, name: str = "web") -> Endpoint:
    return next(e for e in agent.journal.endpoints.values() if e.container_name == name)


def elements(agent: Agent, name: str) -> frozenset[str]:
    assert agent.kernel.ruleset is not None
    return agent.kernel.ruleset.elements.get(name, frozenset())


async def test_a_port_is_published_live_and_taken_back_without_a_trace(online: Agent) -> None:
    before = online.picture()
    (port,) = await online.publishing.publish("web", ("81",))
    assert str(port) == f"0.0.0.0:{FIRST}->81/tcp"
    assert elements(online, "publish4") == {"tcp . 4000 : 10.20.0.2 . 80", f"tcp . {FIRST} : 10.20.0.2 . 81"}
    assert not await online.engine.reconcile()
    await online.publishing.unpublish("web", ("81",))
    await settled()
    assert online.picture() == before


async def test_the_last_port_takes_everything_of_publishing_with_it(online: Agent) -> None:
    await online.publishing.unpublish("web", ("4000:80",))
    assert not elements(online, "publish4") | elements(online, "publish6") | elements(online, "hairpin4")
    assert not online.reservations.held
    assert not await online.engine.reconcile()


@pytest.mark.parametrize(
    ("text", "is_match"),
    [
        ("80", True),
        ("4000:80", True),
        ("4001:80", False),
        ("80/udp", False),
        ("127.0.0.1:4000:80", False),
        ("81", False),
    ],
)
async def test_unpublish_takes_what_matches_and_refuses_what_is_not_there(
    online: Agent, text: str, is_match: bool
) -> None:
    if is_match:
        await online.publishing.unpublish("web", (text,))
        assert row(online).ports == ()
    else:
        with pytest.raises(NotFound, match=r"no public port '8[01]/(tcp|udp)' published for web"):
            await online.publishing.unpublish("web", ("80", text))
        assert len(row(online).ports) == 1


async def test_a_port_that_is_taken_is_refused_and_nothing_changes(online: Agent) -> None:
    before = online.picture()
    for texts in (("4001:81", "4000:82"), ("4000:80",), ("x",)):
        with pytest.raises((Conflict, InvalidRequest)):
            await online.publishing.publish("web", texts)
    await settled()
    assert online.picture() == before


async def test_a_kernel_that_refuses_leaves_the_ports_as_they_were(online: Agent) -> None:
    before = online.picture()
    for change in (online.publishing.publish("web", ("4001:81",)), online.publishing.unpublish("web", ("80",))):
        online.kernel.rearm({0: REFUSAL})
        with pytest.raises(KernelRejected):
            await change
        online.kernel.rearm({})
        await settled()
        assert online.picture() == before


async def test_a_stopped_container_has_its_new_port_with_the_next_start(online: Agent) -> None:
    connection = Connection(networks=("app",))
    await online.containers.create(NewContainer(name="db", command=("sleep",), connection=connection))
    await online.containers.stop("db")
    await online.publishing.publish("db", ("4002:82",))
    assert "tcp . 4002" not in str(elements(online, "publish4"))
    await online.containers.start("db")
    assert "tcp . 4002" in str(elements(online, "publish4"))


async def test_what_has_no_ports_of_its_own_is_refused(online: Agent) -> None:
    for name, mode in (("hosted", "host"), ("joined", "container:web"), ("alone", "none")):
        request = NewContainer(name=name, command=("sleep",), connection=Connection(networks=(mode,)))
        await online.containers.create(request)
        with pytest.raises(Conflict):
            await online.publishing.publish(name, ("80",))
    await online.attach("pod", "app", kind=ContainerKind.CNI, container_id="cni-1")
    with pytest.raises(Conflict, match="connected by its runtime through CNI"):
        await online.publishing.publish("pod", ("80",))


@pytest.mark.parametrize(
    ("address", "sets"),
    [("", ["publish4", "publish6"]), ("0.0.0.0:", ["publish4"]), ("[::]:", ["publish6"])],
)
async def test_the_host_address_says_which_families(online: Agent, address: str, sets: list[str]) -> None:
    await online.publishing.unpublish("web", ("80",))
    await online.publishing.publish("web", (f"{address}4000:80",))
    assert [name for name in ("publish4", "publish6", "publish4_at", "publish6_at") if elements(online, name)] == sets


async def test_families_do_not_collide_with_each_other_but_with_their_own_addresses(online: Agent) -> None:
    await online.publishing.publish("web", ("0.0.0.0:5000:80", "[::]:5000:80"))
    for text in ("5000:81", "127.0.0.1:5000:81", "[fd00::9]:5000:81"):
        with pytest.raises(Conflict, match="port is already allocated"):
            await online.publishing.publish("web", (text,))


async def test_publish_all_gives_exposed_ports_free_host_ports_and_leaves_published_ones(agent: Agent) -> None:
    connection = Connection(expose=("80", "81-82/udp"), publish=("4000:80", "90"), publish_all=True)
    await agent.containers.create(NewContainer(name="web", command=("sleep",), connection=connection))
    assert [str(port) for port in row(agent).ports] == [
        "0.0.0.0:4000->80/tcp",
        f"0.0.0.0:{FIRST}->90/tcp",
        f"0.0.0.0:{FIRST}->81/udp",
        f"0.0.0.0:{SECOND}->82/udp",
    ]
    assert agent.containers.find("web").exposed == ("80/tcp", "81/udp", "82/udp", "90/tcp")


async def test_expose_alone_opens_nothing(agent: Agent) -> None:
    connection = Connection(expose=("80",))
    await agent.containers.create(NewContainer(name="web", command=("sleep",), connection=connection))
    assert row(agent).ports == ()
    assert agent.containers.find("web").exposed == ("80/tcp",)


@pytest.mark.parametrize("text", ["x", "80/icmp", "1:2", "0", "90-80", "70000"])
async def test_an_exposed_port_that_is_none_is_refused(agent: Agent, text: str) -> None:
    with pytest.raises(InvalidRequest):
        await agent.containers.create(
            NewContainer(name="web", command=("sleep",), connection=Connection(expose=(text,)))
        )


# Changing networks


async def test_labels_and_mtu_change_live(online: Agent) -> None:
    change = NetworkChange(name="app", labels={"a": "1", "b": "2"}, options={"mtu": "1400"})
    await online.networks.update(change)
    network = await online.networks.update(NetworkChange(name="app", labels={"a": "3"}, removed_labels=("b", "c")))
    assert (dict(network.labels), network.mtu, dict(network.options)) == ({"a": "3"}, 1400, {"mtu": "1400"})
    assert online.kernel.links[bridge_name(network)].mtu == 1400
    assert online.kernel.links[veth_name(row(online).id)].mtu == 1400
    assert online.networks.find("app") == network


async def test_an_option_is_found_under_both_its_names_and_goes_back_to_its_default(online: Agent) -> None:
    await online.networks.update(NetworkChange(name="app", options={"com.docker.network.driver.mtu": "1400"}))
    network = await online.networks.update(NetworkChange(name="app", options={"mtu": "", "icc": "false"}))
    assert (network.mtu, network.icc, dict(network.options)) == (None, False, {"icc": "false"})


CHANGES: dict[str, tuple[dict[str, Any], type[NetagentError], str]] = {
    "unknown": ({"name": "nope"}, NotFound, "network nope not found"),
    "host": ({"name": "host", "labels": {"a": "1"}}, InvalidRequest, "operation is not permitted on predefined host"),
    "option": ({"name": "app", "options": {"colour": "red"}}, InvalidRequest, "unknown option colour"),
    "mtu": ({"name": "app", "options": {"mtu": "-1"}}, InvalidRequest, "invalid MTU number: -1"),
    "mtu-for-ipv6": ({"name": "app", "options": {"mtu": "1200"}}, InvalidRequest, "invalid MTU number: 1200"),
}


@pytest.mark.parametrize("case", CHANGES)
async def test_a_change_that_cannot_be_is_refused_and_nothing_changes(online: Agent, case: str) -> None:
    wishes, kind, words = CHANGES[case]
    before = online.picture()
    with pytest.raises(kind, match=words):
        await online.networks.update(NetworkChange(**wishes))
    await settled()
    assert online.picture() == before
