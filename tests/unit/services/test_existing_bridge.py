"""The default bridge's configured address, and networks on bridges of somebody else's."""

from dataclasses import replace
from typing import Any

import pytest

from netagent.errors import Conflict, InvalidRequest, NetagentError, NotFound
from netagent.ipam.pools import parse_bip
from netagent.model.address import parse_address
from netagent.model.host import HostFacts
from netagent.model.network import Network
from netagent.plan.desired import Bridge
from netagent.plan.names import bridge_name
from netagent.services.predefined import create_predefined
from netagent.services.requests import NetworkChange
from tests.support.agent import Agent, settled
from tests.support.world import facts
from tests.unit.services.conftest import StartAgent


def _facts() -> HostFacts:
    known = facts(
        "198.18.0.0/24",
        interfaces={
            "eth0": (1500, ("198.18.0.1",)),
            "kbr0": (1400, ("10.77.0.5", "fd00:77::5", "fe80::1")),
            "bare": (1500, ()),
        },
    )
    own = (("10.77.0.5", 24), ("fd00:77::5", 64), ("fe80::1", 64))
    return replace(known, bridges={"kbr0": tuple((parse_address(a), length) for a, length in own), "bare": ()})


@pytest.fixture
async def host(start_agent: StartAgent) -> Agent:
    """An agent on a host with two bridges of its own, one without an address."""
    agent = await start_agent(facts=_facts())
    agent.kernel.foreign |= {"kbr0", "bare", "eth0"}
    return agent


async def create(agent: Agent, name: str = "lan", **more: Any) -> Network:
    options = {"bridge": "kbr0", **more.pop("options", {})}
    return await agent.create_network(name, driver="bridge", options=options, **{"subnets": (), **more})


async def test_a_network_takes_the_bridges_subnets_and_its_addresses_as_gateways(host: Agent) -> None:
    network = await create(host)
    assert [(str(s.prefix), str(s.gateway)) for s in network.subnets] == [
        ("10.77.0.0/24", "10.77.0.5"),
        ("fd00:77::/64", "fd00:77::5"),
    ]
    assert (network.bridge, network.mtu, bridge_name(network)) == ("kbr0", 1400, "kbr0")


async def test_containers_become_its_ports_and_nothing_else_of_it_is_touched(host: Agent) -> None:
    before = host.picture()
    network = await create(host)
    endpoint = await host.attach("web", "lan", publish=("4000:80",))
    await settled()
    (link,) = host.kernel.links.values()
    assert (link.master, link.mtu) == ("kbr0", 1400)
    assert not any(isinstance(link.kind, Bridge) for link in host.kernel.links.values())
    assert {a.where for a in host.kernel.addresses} == {endpoint.sandbox}
    assert {name[-1] for name in host.kernel.sysctls if "kbr0" in name} == {"route_localnet"}
    assert host.kernel.ruleset is not None
    assert "kbr0" in host.kernel.ruleset.elements["inside"]
    assert not await host.engine.reconcile()
    await host.attachments.detach("web")
    async for _ in host.network_removal.remove(network.name):
        pass
    await settled()
    assert not host.kernel.links
    after = host.picture()
    assert (after.endpoints, after.containers, after.ports) == (before.endpoints, before.containers, before.ports)


async def test_a_gateway_behind_the_bridge_leaves_its_own_address_to_it(host: Agent) -> None:
    network = await create(host, subnets=("10.77.0.0/24",), gateways=("10.77.0.1",))
    (subnet,) = network.subnets
    assert str(subnet.gateway) == "10.77.0.1"
    assert subnet.auxiliary == (("kbr0 10.77.0.5", parse_address("10.77.0.5")),)
    bare = await create(host, "bare", options={"bridge": "bare"}, subnets=("10.78.0.0/24",), gateways=("10.78.0.9",))
    assert str(bare.subnets[0].gateway) == "10.78.0.9"


@pytest.mark.parametrize(
    ("request_parts", "error", "words"),
    [
        ({"options": {"bridge": "none0"}}, NotFound, "bridge none0 does not exist"),
        ({"options": {"bridge": "eth0"}}, InvalidRequest, "interface eth0 is not a bridge"),
        ({"options": {"bridge": "bare"}}, InvalidRequest, "bridge bare has no address"),
        ({"options": {"bridge": "bare"}, "ipv6": True}, InvalidRequest, "bridge bare has no IPv6 address"),
        ({"options": {"bridge": "a/b"}}, InvalidRequest, "invalid interface name 'a/b'"),
        ({"options": {"bridge": "taken"}}, Conflict, "bridge {own} is netagent's own, of network app"),
        ({"subnets": ("10.79.0.0/24",)}, InvalidRequest, "bridge kbr0 has no address in 10.79.0.0/24"),
        (
            {"options": {"bridge": "bare"}, "subnets": ("198.18.0.0/25",), "gateways": ("198.18.0.9",)},
            Conflict,
            "subnet 198.18.0.0/25 overlaps with the host's route",
        ),
    ],
)
async def test_a_bridge_that_cannot_be_used_is_refused_and_nothing_changes(
    host: Agent, request_parts: dict[str, Any], error: type[NetagentError], words: str
) -> None:
    own = bridge_name(await host.create_network("app", driver="bridge", subnets=("10.20.0.0/24",)))
    await settled()
    before = host.picture()
    if request_parts.get("options") == {"bridge": "taken"}:
        request_parts = {"options": {"bridge": own}}
    with pytest.raises(error, match=words.format(own=own)):
        await create(host, **request_parts)
    await settled()
    assert host.picture() == before


async def test_a_family_that_is_not_wanted_is_left_out(host: Agent) -> None:
    network = await create(host, ipv4=False, ipv6=True)
    assert [str(subnet.prefix) for subnet in network.subnets] == ["fd00:77::/64"]


async def test_a_bridge_serves_one_network_and_stays_with_it(host: Agent) -> None:
    await create(host)
    with pytest.raises(Conflict, match="bridge kbr0 is used by network lan already"):
        await create(host, "second", subnets=("10.77.0.0/24",))
    with pytest.raises(InvalidRequest, match="the bridge of a network cannot be changed"):
        await host.networks.update(NetworkChange(name="lan", options={"bridge": ""}))
    changed = await host.networks.update(NetworkChange(name="lan", options={"icc": "false"}))
    assert (changed.bridge, changed.mtu) == ("kbr0", 1400)


async def test_other_drivers_have_no_existing_bridge(host: Agent) -> None:
    with pytest.raises(InvalidRequest, match="option bridge does not work with the driver vxlan"):
        await host.create_network("wide", driver="vxlan", options={"bridge": "kbr0"})


def _default(agent: Agent) -> tuple[str, str]:
    (subnet,) = agent.networks.find("bridge").subnets
    return str(subnet.prefix), str(subnet.gateway)


async def test_the_default_network_has_the_configured_address_from_the_start(start_agent: StartAgent) -> None:
    agent = await start_agent(bip="172.18.42.1/16")
    assert _default(agent) == ("172.18.0.0/16", "172.18.42.1")
    assert str((await agent.attach("web")).addresses[0].address) == "172.18.0.1"


async def test_another_address_waits_until_the_default_network_is_unused(
    start_agent: StartAgent, caplog: pytest.LogCaptureFixture
) -> None:
    agent = await start_agent()
    before = _default(agent)
    await agent.attach("web")
    await agent.stop()
    again = await start_agent(kernel=agent.kernel, bip="172.18.42.1/16")
    assert _default(again) == before
    assert "keeps the subnet 172.16.0.0/24 instead of bip: web is connected" in caplog.text
    await again.attachments.detach("web")
    await settled()
    await again.stop()
    last = await start_agent(kernel=agent.kernel, bip="172.18.42.1/16")
    assert _default(last) == ("172.18.0.0/16", "172.18.42.1")
    assert not last.kernel.links
    assert [network.name for network in last.networks.list()] == ["bridge", "host", "none"]
    assert str((await last.attach("web")).addresses[0].address).startswith("172.18.")


async def test_an_address_that_overlaps_is_refused_at_the_start(start_agent: StartAgent) -> None:
    agent = await start_agent(facts=_facts())
    context = replace(agent.context, default_subnet=parse_bip("198.18.0.77/24"))
    with pytest.raises(Conflict, match=r"bip: subnet 198\.18\.0\.0/24 overlaps with the host's route"):
        await create_predefined(context)


WRONG = ["", "x", "172.18.42.1", "172.18.42.1/", "172.18.42.1/99", "172.18.0.0/16", "1.1.1.1/31", "127.0.0.1/8"]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_address_of_a_bridge_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid"):
        parse_bip(text)
