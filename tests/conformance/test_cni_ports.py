"""CNI ``portMappings``: who reaches them, what is refused, and which connections are forgotten (C55 to C62)."""

from typing import Any

import pytest

from tests.conformance.conftest import Machine, Make
from tests.support.cni import Plugin, a_configuration
from tests.support.lab import eventually
from tests.support.lone_host import ADDRESS, LAN_ADDRESS

pytestmark = pytest.mark.cluster


def mapped(*mappings: dict[str, Any], network: str = "app") -> dict[str, Any]:
    return a_configuration(network, version="1.1.0", runtimeConfig={"portMappings": list(mappings)})


def port(host_port: Any, container_port: Any = 80, **more: Any) -> dict[str, Any]:
    return {"hostPort": host_port, "containerPort": container_port, **more}


def elements(machine: Machine) -> str:
    return machine.run("nft", "list", "table", "inet", "netagent")


def test_c55_a_mapped_port_is_reached_from_everywhere(machine: Machine, plugin: Plugin, netns: Make) -> None:
    (name, path), (other, other_path) = netns(), netns()
    plugin.add(name, path, configuration=mapped(port(4055, protocol="TCP")))
    plugin.add(other, other_path)
    machine.serve_text("hello", 80, inside=name)
    reached = {
        "another machine": machine.fetch(ADDRESS, 4055, inside="lan"),
        "the host": machine.fetch(ADDRESS, 4055),
        "the host by loopback": machine.fetch("127.0.0.1", 4055),
        "another container": machine.fetch(ADDRESS, 4055, inside=other),
        "itself": machine.fetch(ADDRESS, 4055, inside=name),
    }
    assert reached == dict.fromkeys(reached, "hello")


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_c55_every_protocol_and_family_is_mapped(machine: Machine, plugin: Plugin, netns: Make, protocol: str) -> None:
    result = plugin.add(*netns(), configuration=mapped(port(4155, protocol=protocol), network="dual")).json
    shown = elements(machine)
    for ip in result["ips"]:
        assert f"{protocol} . 4155 : {ip['address'].partition('/')[0]} . 80" in shown


def test_c56_a_port_of_loopback_is_reached_from_the_host_alone(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    plugin.add(name, path, configuration=mapped(port(4056, hostIP="127.0.0.1")))
    machine.serve_text("hello", 80, inside=name)
    assert machine.fetch("127.0.0.1", 4056) == "hello"
    assert machine.fetch(ADDRESS, 4056) == ""
    assert machine.fetch(ADDRESS, 4056, inside="lan") == ""
    machine.run("ip", "route", "add", "127.0.0.1/32", "via", ADDRESS, inside="lan", check=False)
    assert machine.fetch("127.0.0.1", 4056, inside="lan") == "", "nor by a route to it"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", ADDRESS, ""])
def test_c56_a_port_of_an_address_is_reached_there(machine: Machine, plugin: Plugin, netns: Make, address: str) -> None:
    name, path = netns()
    outcome = plugin.add(name, path, configuration=mapped(port(4156, hostIP=address), network="dual"))
    assert outcome.status == 0, outcome
    machine.serve_text("hello", 80, inside=name)
    if address != "::":
        assert machine.fetch(ADDRESS, 4156, inside="lan") == "hello"


@pytest.mark.parametrize("address", ["256.1.1.1", "name", "127.0.0.1/8", 7])
def test_c56_an_invalid_host_address_is_refused(plugin: Plugin, netns: Make, address: Any) -> None:
    assert plugin.add(*netns(), configuration=mapped(port(4256, hostIP=address))).code == 7


BAD = {
    "zero": [port(0)],
    "negative": [port(-1)],
    "too-large": [port(65536)],
    "text": [port("80")],
    "container-zero": [port(4057, 0)],
    "container-too-large": [port(4057, 65536)],
    "twice": [port(4057), port(4057)],
    "unknown-protocol": [port(4057, protocol="icmp")],
    "no-list": "4057:80",
}


@pytest.mark.parametrize("mappings", BAD.values(), ids=BAD)
def test_c57_a_bad_mapping_is_refused(machine: Machine, plugin: Plugin, netns: Make, mappings: Any) -> None:
    plugin.add(*netns())
    name, path = netns()
    before = machine.dump()
    configuration = a_configuration(runtimeConfig={"portMappings": mappings})
    assert plugin.add(name, path, configuration=configuration).code == 7
    machine.settles(before)


def test_c58_a_port_of_another_attachment_is_refused(machine: Machine, plugin: Plugin, netns: Make) -> None:
    plugin.add(*netns(), configuration=mapped(port(4058)))
    name, path = netns()
    before = machine.dump()
    for taken in (port(4058), port(4058, hostIP=ADDRESS), port(4058, hostIP="127.0.0.1")):
        outcome = plugin.add(name, path, configuration=mapped(taken))
        assert outcome.code == 101
        assert "4058" in outcome.json["msg"]
    machine.settles(before)
    assert plugin.add(name, path, configuration=mapped(port(4058, protocol="udp"))).status == 0


def test_c58_one_port_of_two_addresses_may_have_two_owners(plugin: Plugin, netns: Make) -> None:
    assert plugin.add(*netns(), configuration=mapped(port(4158, hostIP=ADDRESS))).status == 0
    assert plugin.add(*netns(), configuration=mapped(port(4158, hostIP="127.0.0.1"))).status == 0


def test_c59_a_port_of_a_process_is_refused(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    listener = machine.spawn("socat", "TCP-LISTEN:4059,fork", "SYSTEM:true")
    eventually(lambda: ":4059 " in machine.run("ss", "-tlnH"))
    assert plugin.add(name, path, configuration=mapped(port(4059))).code == 101
    listener.kill()
    listener.wait()
    assert plugin.add(name, path, configuration=mapped(port(4059))).status == 0


def test_c60_traffic_to_the_same_port_elsewhere_is_left_alone(machine: Machine, plugin: Plugin, netns: Make) -> None:
    (name, path), (other, other_path) = netns(), netns()
    plugin.add(name, path, configuration=mapped(port(4060)))
    plugin.add(other, other_path)
    machine.serve_text("container", 80, inside=name)
    machine.serve_text("elsewhere", 4060, inside="lan")
    assert machine.fetch(LAN_ADDRESS, 4060, inside=other) == "elsewhere"
    assert machine.fetch(LAN_ADDRESS, 4060) == "elsewhere"


def test_c61_a_udp_flow_goes_on_to_the_next_container(machine: Machine, plugin: Plugin, netns: Make) -> None:
    """One socket that never stops sending: the kernel would remember the first container for as long."""
    configuration = mapped(port(4061, 80, protocol="udp"))
    # socat answers every datagram with its container's name; the client sends from one port all the time.
    client = (
        "import socket,sys,time\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',4999));s.settimeout(.2)\n"
        f"s.connect(('{ADDRESS}',4061))\n"
        "end=time.monotonic()+float(sys.argv[2])\n"
        "while time.monotonic()<end:\n"
        "    try:\n        s.send(b'x');got=s.recv(99).decode().strip()\n"
        "    except OSError:\n        got='';time.sleep(.05)\n"
        "    if got==sys.argv[1]:sys.exit(0)\n"
        "sys.exit(1)\n"
    )
    for _ in range(2):
        name, path = netns()
        assert plugin.add(name, path, configuration=configuration).status == 0
        machine.spawn("socat", "UDP-LISTEN:80,fork,reuseaddr", f"SYSTEM:echo {name}", inside=name)
        eventually(lambda name=name: ":80 " in machine.run("ss", "-ulnH", inside=name))  # type: ignore[misc]
        assert machine.succeeds("python3", "-c", client, name, "5", inside="lan")
        assert plugin.delete(name, path, configuration=configuration).status == 0


def test_c62_connections_of_other_mappings_live_on(machine: Machine, plugin: Plugin, netns: Make) -> None:
    (name, path), (other, other_path) = netns(), netns()
    plugin.add(name, path, configuration=mapped(port(4062)))
    machine.spawn("socat", "TCP-LISTEN:80,fork,reuseaddr", "EXEC:cat", inside=name)
    eventually(lambda: ":80 " in machine.run("ss", "-tlnH", inside=name))
    # The other end echoes; a line before and one after the changes must come back over one connection.
    script = f"(echo one; sleep 2; echo two) | socat -t3 - TCP:{ADDRESS}:4062,connect-timeout=2"
    command = machine.spawn("sh", "-c", f"{script} > /run/c62", inside="lan")
    eventually(lambda: "one" in machine.run("sh", "-c", "cat /run/c62 2>/dev/null || true"))
    for _ in range(3):
        assert plugin.add(other, other_path, configuration=mapped(port(4162))).status == 0
        assert plugin.delete(other, other_path, configuration=mapped(port(4162))).status == 0
    command.wait(timeout=20)
    assert machine.run("cat", "/run/c62").split() == ["one", "two"]
