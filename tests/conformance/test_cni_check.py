"""CNI CHECK: what was tampered with is named, what later plugins may change is accepted (C76 to C89)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import Machine, Make, previous
from tests.support.cni import Outcome, Plugin, a_configuration
from tests.support.cni_runner import Runner
from tests.support.lab import eventually

pytestmark = pytest.mark.cluster

CONFIGURATION = a_configuration(version="1.1.0")
PORTS = {"portMappings": [{"hostPort": 4076, "containerPort": 80}]}


def check(plugin: Plugin, name: str, path: str, result: dict[str, Any], **keys: Any) -> Outcome:
    return plugin.call("CHECK", name, path, configuration=previous(CONFIGURATION | keys, result))


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_c76_check_after_add_succeeds(plugin: Plugin, netns: Make, version: str) -> None:
    name, path = netns()
    configuration = a_configuration("dual", version=version, runtimeConfig=PORTS)
    result = plugin.add(name, path, configuration=configuration).json
    outcome = plugin.call("CHECK", name, path, configuration=previous(configuration, result))
    assert outcome == Outcome(status=0, stdout="", stderr="")


def test_c77_check_without_the_result_of_add_is_refused(plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    plugin.add(name, path)
    outcome = plugin.call("CHECK", name, path, configuration=CONFIGURATION)
    assert outcome.code == 7
    assert "prevResult" in outcome.json["msg"]


INSIDE = {
    "C78-interface-down": (("ip", "link", "set", "eth0", "down"), "link set"),
    "C79-address-removed": (("ip", "address", "flush", "dev", "eth0"), "address add"),
    "C80-default-route-removed": (("ip", "route", "delete", "default"), "route replace 0.0.0.0/0"),
    "C81-interface-renamed": (("sh", "-c", "ip link set eth0 down; ip link set eth0 name lost"), "eth0 is missing"),
}


@pytest.mark.parametrize("sabotage", INSIDE.values(), ids=INSIDE)
def test_check_names_what_was_changed_inside(
    machine: Machine, plugin: Plugin, netns: Make, sabotage: tuple[tuple[str, ...], str]
) -> None:
    command, named = sabotage
    name, path = netns()
    result = plugin.add(name, path).json
    machine.run(*command, inside=name)
    outcome = check(plugin, name, path, result)
    assert outcome.code == 110
    assert named in outcome.json["details"]
    eventually(lambda: check(plugin, name, path, result).status == 0), "a fault that was found is mended"


OUTSIDE = {
    "C82-veth-off-the-bridge": ("app", "ip link set {veth} nomaster", "master"),
    "C83-bridge-deleted": ("app", "ip link delete {bridge}", "link add"),
    "C84-rule-removed": ("app", "nft flush chain inet netagent postrouting", "nft replace tables"),
    "C85-table-flushed": ("app", "nft delete table inet netagent", "nft replace tables"),
    "C87-tunnel-device-gone": ("wide", "ip link delete {tunnel}", "link add"),
}


@pytest.mark.parametrize("sabotage", OUTSIDE.values(), ids=OUTSIDE)
def test_check_names_what_was_changed_outside_or_it_is_mended_already(
    machine: Machine, plugin: Plugin, netns: Make, sabotage: tuple[str, str, str]
) -> None:
    """The agent hears of these and is mostly quicker than a runtime; what a CHECK then lets pass must be whole."""
    network, command, named = sabotage
    name, path = netns()
    configuration = a_configuration(network, version="1.1.0", runtimeConfig=PORTS)
    result = plugin.add(name, path, configuration=configuration).json
    whole = machine.dump()
    links = {link["ifname"] for link in machine.links() if link["ifname"].startswith("na")}
    tunnels = [link for link in links if link.startswith("nav")]
    words = {
        "bridge": result["interfaces"][0]["name"],
        "veth": result["interfaces"][1]["name"],
        "tunnel": tunnels[0] if tunnels else "",
    }
    machine.run("sh", "-c", command.format(**words))
    outcome = plugin.call("CHECK", name, path, configuration=previous(configuration, result))
    if outcome.status:
        assert outcome.code == 110
        assert named in outcome.json["details"]
    else:
        mended = machine.dump()
        assert all(mended[part] == whole[part] for part in ("links", "routes", "firewall"))
    eventually(lambda: plugin.call("CHECK", name, path, configuration=previous(configuration, result)).status == 0)


def test_c86_check_of_an_attachment_that_was_forgotten_says_so(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    result = plugin.add(name, path).json
    machine.netagent("detach", name)
    outcome = check(plugin, name, path, result)
    assert outcome.code == 110
    assert f"container {name} has no attachment eth0" in outcome.json["msg"]


def test_c87_check_without_an_agent_may_be_tried_again(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    result = plugin.add(name, path).json
    machine.stop_agent()
    assert check(plugin, name, path, result).code == 11
    machine.start_agent()
    assert check(plugin, name, path, result).status == 0


def test_c88_check_accepts_what_a_later_plugin_did(
    machine: Machine, netns: Make, runner: Callable[..., Runner]
) -> None:
    name, path = netns()
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}, "mtu": 1400}
    chain = runner({"type": "netagent"}, tuning | {"mac": "02:00:00:00:00:88"}, version="1.0.0")
    result = chain.add(name, path)
    assert result["interfaces"][2]["mac"] == "02:00:00:00:00:88"
    machine.run("ip", "route", "add", "203.0.113.0/24", "dev", "eth0", inside=name)
    machine.run("ip", "address", "add", "203.0.113.1/32", "dev", "eth0", inside=name)
    chain.check(name, path)
    machine.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:89", inside=name)
    assert (
        machine.plugin.call("CHECK", name, path, configuration=previous(a_configuration(version="1.0.0"), result)).code
        == 110
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"interfaces": []}, 110),
        ({"interfaces": [{"name": "eth0", "sandbox": "/run/netns/other"}]}, 110),
        ({"ips": []}, 110),
        ({"interfaces": "eth0"}, 7),
        ({"interfaces": ["eth0"]}, 7),
        ({"ips": [7]}, 7),
    ],
    ids=json.dumps,
)
def test_c89_check_with_the_result_of_something_else_is_refused(
    plugin: Plugin, netns: Make, change: dict[str, Any], code: int
) -> None:
    name, path = netns()
    result = plugin.add(name, path).json
    assert check(plugin, name, path, result | change).code == code


def test_c89_check_of_another_namespace_is_refused(plugin: Plugin, netns: Make) -> None:
    (name, path), (_, other) = netns(), netns()
    result = plugin.add(name, path).json
    result["interfaces"][2]["sandbox"] = other
    assert check(plugin, name, other, result).code == 110
