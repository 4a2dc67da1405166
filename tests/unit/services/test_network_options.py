"""Ranges, auxiliary addresses, pools and options of a network, from the request to the kernel."""

import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from netagent.daemon.config import load_config
from netagent.errors import Conflict, Exhausted, InvalidRequest
from netagent.ipam.pools import choose_ipv6_subnet, choose_subnet, parse_pool
from netagent.model.network import Scope
from netagent.plan.names import veth_name
from netagent.services.requests import NewNetwork
from netagent.store import keys
from netagent.store.network_records import decode_network
from tests.support.agent import Agent, settled
from tests.support.world import a_local_network, facts

APP = {"driver": "bridge", "subnets": ("10.20.0.0/24",)}


async def test_automatic_addresses_come_from_the_range_and_leave_out_auxiliary_ones(agent: Agent) -> None:
    await agent.create_network(
        "app", **APP, ip_ranges=("10.20.0.8/29",), aux_addresses={"router": "10.20.0.9", "printer": "10.20.0.200"}
    )
    given = [str((await agent.attach(f"c{n}", "app")).address_of(4)) for n in range(7)]
    assert given == [f"10.20.0.{n}" for n in (8, 10, 11, 12, 13, 14, 15)]
    with pytest.raises(Exhausted, match="no available addresses"):
        await agent.attach("one-more", "app")
    assert str((await agent.attach("fixed", "app", ip="10.20.0.77")).address_of(4)) == "10.20.0.77"
    with pytest.raises(Conflict, match=r"Address already in use: 10\.20\.0\.200"):
        await agent.attach("thief", "app", ip="10.20.0.200")


async def test_addresses_go_round_within_the_range(agent: Agent) -> None:
    await agent.create_network("app", **APP, ip_ranges=("10.20.0.128/30",))
    for expected in ("128", "129", "130", "131", "128"):
        assert str((await agent.attach("c", "app")).address_of(4)) == f"10.20.0.{expected}"
        await agent.attachments.detach("c")


async def test_a_cluster_wide_range_bounds_the_blocks_of_the_hosts(agent: Agent) -> None:
    network = await agent.create_network("wide", subnets=("10.30.0.0/16",), ip_ranges=("10.30.128.0/17",))
    await agent.attach("web", "wide")
    assert [str(b.prefix) for b in agent.context.snapshot().own_blocks_in(network.id)] == ["10.30.128.0/24"]


async def test_ranges_and_options_survive_in_the_record(agent: Agent) -> None:
    network = await agent.create_network(
        "app",
        **APP,
        ip_ranges=("10.20.0.8/29",),
        aux_addresses={"router": "10.20.0.9"},
        options={"com.docker.network.bridge.enable_icc": "false", "masquerade": "0", "mtu": "1400"},
        labels={"tier": "db"},
    )
    record = agent.stores.local.mirror.entries[keys.network_key("app")].value
    assert decode_network(record) == network
    assert (network.icc, network.masquerade, network.mtu) == (False, False, 1400)
    broken = json.loads(record)
    broken["subnets"][0]["ip_range"] = "10.99.0.0/24"
    with pytest.raises(Exception, match=r"range 10\.99\.0\.0/24 is outside 10\.20\.0\.0/24"):
        decode_network(json.dumps(broken).encode())


async def test_without_icc_the_network_and_its_ports_are_separate(agent: Agent) -> None:
    await agent.create_network("app", **APP, options={"icc": "false"})
    endpoint = await agent.attach("web", "app")
    await settled()
    assert agent.kernel.ruleset is not None
    assert agent.kernel.ruleset.elements["bridge/separate"] == {veth_name(endpoint.id)}
    bridge = agent.kernel.links[veth_name(endpoint.id)].master
    assert agent.kernel.ruleset.elements["separate"] == {bridge}


async def test_without_masquerade_the_subnet_is_not_translated(agent: Agent) -> None:
    await agent.create_network("app", **APP, options={"masquerade": "false"})
    await agent.attach("web", "app")
    await settled()
    assert agent.kernel.ruleset is not None
    assert "10.20.0.0/24" not in agent.kernel.ruleset.elements.get("masquerade4", frozenset())


async def test_ipv6_without_a_subnet_is_a_unique_local_one(agent: Agent) -> None:
    first = await agent.create_network("one", driver="bridge", subnets=(), ipv6=True)
    second = await agent.create_network("two", driver="bridge", subnets=(), ipv6=True)
    chosen = [network.subnets[1].prefix for network in (first, second)]
    assert all(prefix.prefixlen == 64 and prefix.subnet_of(ip_network("fd00::/8")) for prefix in chosen)
    assert chosen[0] != chosen[1]
    assert (await agent.attach("web", "one")).address_of(6) in chosen[0]


def test_configured_pools_are_used_in_order_and_avoid_the_hosts_routes() -> None:
    pools = (parse_pool("10.0.0.0/23", 24), parse_pool("192.168.0.0/16", 26), parse_pool("fd12::/48", 64))
    first = choose_subnet(Scope.LOCAL, [], facts("10.0.0.0/24"), pools)
    assert str(first.prefix) == "10.0.1.0/24"
    taken = [a_local_network("10.0.1.0/24")]
    assert str(choose_subnet(Scope.LOCAL, taken, facts("10.0.0.0/24"), pools).prefix) == "192.168.0.0/26"
    assert str(choose_ipv6_subnet("x", Scope.LOCAL, taken, facts(), pools).prefix) == "fd12::/64"
    with pytest.raises(Exhausted, match="all predefined address pools have been fully subnetted"):
        choose_subnet(Scope.LOCAL, [], facts("10.0.0.0/8"), pools[:1])


@pytest.mark.parametrize(("base", "size"), [("10.0.0.0/16", 8), ("10.0.0.0/16", 31), ("127.0.0.0/8", 24), ("x", 24)])
def test_a_pool_that_gives_no_subnets_is_refused(base: str, size: int) -> None:
    with pytest.raises(InvalidRequest):
        parse_pool(base, size)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "range-without-subnet": (
        {"subnets": (), "ip_ranges": ("10.20.0.8/29",)},
        "every ip-range or gateway must have a corresponding subnet",
    ),
    "range-elsewhere": ({"ip_ranges": ("10.99.0.0/29",)}, "no matching subnet for range 10.99.0.0/29"),
    "range-too-big": (
        {"ip_ranges": ("10.20.0.0/16",)},
        "invalid ip-range 10.20.0.0/16: CIDR block is bigger than its parent subnet 10.20.0.0/24",
    ),
    "range-host-bits": ({"ip_ranges": ("10.20.0.9/29",)}, "invalid ip-range 10.20.0.9/29: it should be 10.20.0.8/29"),
    "two-ranges": (
        {"subnets": ("10.20.0.0/24", "fd00::/64"), "ip_ranges": ("10.20.0.8/29", "10.20.0.16/29")},
        r"cannot configure multiple ranges \(10.20.0.8/29, 10.20.0.16/29\) on the same subnet \(10.20.0.0/24\)",
    ),
    "two-gateways": (
        {"subnets": ("10.20.0.0/24", "fd00::/64"), "gateways": ("10.20.0.1", "10.20.0.2")},
        r"cannot configure multiple gateways \(10.20.0.1, 10.20.0.2\) for the same subnet \(10.20.0.0/24\)",
    ),
    "aux-elsewhere": ({"aux_addresses": {"a": "10.99.0.1"}}, "no matching subnet for aux-address 10.99.0.1"),
    "aux-malformed": ({"aux_addresses": {"a": "banana"}}, "invalid aux-address 'banana'"),
    "aux-is-gateway": ({"aux_addresses": {"a": "10.20.0.1"}}, "it is the gateway"),
    "option-unknown": ({"options": {"colour": "red"}}, "unknown option colour"),
    "option-value": ({"options": {"icc": "maybe"}}, "invalid value for option icc: 'maybe'"),
    "option-twice": (
        {"options": {"mtu": "1400", "com.docker.network.driver.mtu": "1300"}},
        "option mtu is given twice: 1300 and 1400",
    ),
    "icc-of-an-overlay": ({"driver": "vxlan", "options": {"icc": "false"}}, "option icc does not work with the driver"),
    "range-below-a-block": (
        {"driver": "vxlan", "subnets": ("10.20.0.0/16",), "ip_ranges": ("10.20.1.0/28",)},
        "invalid ip-range 10.20.1.0/28: smaller than the block of a host, /24",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_does_not_fit_is_refused_and_changes_nothing(agent: Agent, case: str) -> None:
    wishes, words = REFUSED[case]
    before = agent.picture()
    with pytest.raises(InvalidRequest, match=words):
        await agent.networks.create(NewNetwork(**{"name": "app", **APP, **wishes}))
    await settled()
    assert agent.picture() == before


def test_pools_are_read_from_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('[[default_address_pools]]\nbase = "10.0.0.0/16"\nsize = 24\n')
    (pool,) = load_config(file, {}).default_address_pools
    assert (pool.base, pool.size) == ("10.0.0.0/16", 24)


@pytest.mark.parametrize(
    ("wishes", "versions"),
    [
        ({}, [4]),
        ({"ipv4": True}, [4]),
        ({"ipv6": True}, [4, 6]),
        ({"ipv4": False, "ipv6": True}, [6]),
        ({"subnets": ("fd00:5::/64",)}, [6]),
        ({"subnets": ("fd00:5::/64",), "ipv6": True}, [6]),
        ({"subnets": ("fd00:5::/64",), "ipv4": False}, [6]),
        ({"subnets": ("fd00:5::/64",), "ipv4": True}, [4, 6]),
        ({"subnets": ("10.5.0.0/24",), "ipv6": True}, [4, 6]),
    ],
)
@pytest.mark.parametrize("driver", ["bridge", "vxlan"])
async def test_families_are_those_of_the_subnets_unless_said_otherwise(
    agent: Agent, driver: str, wishes: dict[str, Any], versions: list[int]
) -> None:
    network = await agent.create_network("net", **{"driver": driver, "subnets": (), **wishes})
    assert [subnet.prefix.version for subnet in network.subnets] == versions


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"ipv4": False}, "IPv4 or IPv6 must be enabled"),
        ({"ipv4": False, "subnets": ("10.5.0.0/24",)}, "conflicting options: IPv4 subnet and --ipv4=false"),
    ],
)
async def test_a_network_of_no_family_is_refused(agent: Agent, wishes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        await agent.create_network("net", **{"subnets": (), **wishes})
