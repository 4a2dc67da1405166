"""Containers in several networks: where their default routes lead, each family for itself, and how that changes."""

import json

import pytest

from netagent.lab.host import Host
from tests.support.hosts import dump, inside, inspect, netagent, refusal, run, same
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def host(make_lab: MakeLab) -> Host:
    (host,) = make_lab(hosts=1).hosts
    create = ("network", "create", "--subnet")
    netagent(host, *create, "10.81.0.0/24", "ant")
    netagent(host, *create, "10.82.0.0/24", "--subnet", "fd82::/64", "zoo")
    netagent(host, *create, "10.83.0.0/24", "--subnet", "fd83::/64", "--internal", "inner")
    return host


def ways_out(host: Host, name: str) -> tuple[str, str]:
    """Return the gateways of a container's default routes as its kernel has them, IPv4 and IPv6."""
    listings = (inside(host, name, "ip", "-j", family, "route", "show", "default").stdout for family in ("-4", "-6"))
    four, six = ([route["gateway"] for route in json.loads(listing or "[]")] for listing in listings)
    assert len(four) <= 1, four
    assert len(six) <= 1, six
    return "".join(four), "".join(six)


def test_each_family_leaves_by_the_network_of_the_highest_priority_or_the_first_name(host: Host) -> None:
    run(host, "both", "--network", "zoo", "--network", "ant", "--network", "inner")
    assert ways_out(host, "both") == ("10.81.0.1", "fd82::1")
    run(host, "prior", "--network", "name=zoo,gw-priority=1", "--network", "ant")
    assert ways_out(host, "prior") == ("10.82.0.1", "fd82::1")
    assert inspect(host, "prior")["NetworkSettings"]["Networks"]["zoo"]["GwPriority"] == 1
    run(host, "shut", "--network", "inner", "--gw-priority", "9")
    assert ways_out(host, "shut") == ("", "")
    netagent(host, "rm", "-f", "both", "prior", "shut")


def test_default_routes_move_as_networks_come_and_go_and_survive_stop_start_and_the_agent(host: Host) -> None:
    run(host, "mover", "--network", "ant", "--ip", "10.81.0.77")
    assert ways_out(host, "mover") == ("10.81.0.1", "")
    netagent(host, "network", "connect", "zoo", "mover")
    assert ways_out(host, "mover") == ("10.81.0.1", "fd82::1")
    netagent(host, "network", "disconnect", "zoo", "mover")
    assert ways_out(host, "mover") == ("10.81.0.1", "")
    netagent(
        host, "network", "connect", "--gw-priority", "3", "--ip", "10.82.0.77", "--ip6", "fd82::77", "zoo", "mover"
    )
    assert ways_out(host, "mover") == ("10.82.0.1", "fd82::1")
    host.agent.restart()
    assert ways_out(host, "mover") == ("10.82.0.1", "fd82::1")
    netagent(host, "restart", "-t", "0", "mover")
    assert ways_out(host, "mover") == ("10.82.0.1", "fd82::1")
    settings = inspect(host, "mover")["NetworkSettings"]["Networks"]
    assert settings["ant"]["IPAddress"] == "10.81.0.77"
    assert (settings["zoo"]["IPAddress"], settings["zoo"]["GlobalIPv6Address"]) == ("10.82.0.77", "fd82::77")
    netagent(host, "network", "disconnect", "zoo", "mover")
    assert ways_out(host, "mover") == ("10.81.0.1", "")
    netagent(host, "rm", "-f", "mover")


def test_a_mac_address_is_had_once_in_a_network(host: Host) -> None:
    mac = "02:00:00:00:00:77"
    run(host, "holder", "--network", "ant", "--mac-address", mac)
    before = dump(host)
    said = refusal(host, "run", "-d", "--network", "ant", "--mac-address", mac, "--", "true", status=125)
    assert said.startswith(f"MAC address {mac} is already in use in network ant by container holder (")
    eventually(lambda: same(host, before))
    run(host, "elsewhere", "--network", "zoo", "--mac-address", mac)
    netagent(host, "rm", "-f", "holder", "elsewhere")


def test_a_stopped_container_keeps_its_fixed_addresses_over_a_restart_of_the_agent(host: Host) -> None:
    fixed = {"--ip": "10.82.0.50", "--ip6": "fd82::50"}
    before = usage(host)
    run(host, "owner", "--network", "zoo", *(word for pair in fixed.items() for word in pair))
    held = usage(host)
    assert [held[prefix] - before[prefix] for prefix in held] == [1, 1]
    netagent(host, "stop", "-t", "0", "owner")
    host.agent.restart()
    assert usage(host) == held
    for option, address in fixed.items():
        said = refusal(host, "run", "-d", "--network", "zoo", option, address, "--", "true", status=125)
        assert said.startswith(f"Address already in use: {address} in network zoo (")
    netagent(host, "start", "owner")
    settings = inspect(host, "owner")["NetworkSettings"]["Networks"]["zoo"]
    assert (settings["IPAddress"], settings["GlobalIPv6Address"]) == tuple(fixed.values())
    netagent(host, "rm", "-f", "owner")
    eventually(lambda: usage(host) == before)


def usage(host: Host) -> dict[str, int]:
    """Return how many addresses of the network zoo are in use, by subnet."""
    (shown,) = json.loads(netagent(host, "network", "inspect", "zoo").stdout)
    subnets = shown["Status"]["IPAM"]["Subnets"]
    sizes = {"10.82.0.0/24": 2**8, "fd82::/64": 2**64}
    assert all(entry["IPsInUse"] + entry["DynamicIPsAvailable"] == sizes[prefix] for prefix, entry in subnets.items())
    return {prefix: entry["IPsInUse"] for prefix, entry in subnets.items()}
