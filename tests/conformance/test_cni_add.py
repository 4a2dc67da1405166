"""CNI ADD: results, what the kernel has of them, capabilities, other IPAM plugins (C31 to C54, C101, C102, C104)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import Machine, Make
from tests.support.cni import PLUGIN, Plugin, a_configuration
from tests.support.cni_runner import PluginFailed, Runner, add_in_parallel
from tests.support.lone_host import LAN_ADDRESS

pytestmark = pytest.mark.cluster

CONFIGURATION = a_configuration(version="1.1.0")

INTERFACE_KEYS = {"name", "mac", "sandbox"}
KEYS = {
    "0.1.0": ({"cniVersion", "ip4", "ip6", "dns"}, {"ip", "gateway", "routes"}),
    "0.2.0": ({"cniVersion", "ip4", "ip6", "dns"}, {"ip", "gateway", "routes"}),
    **dict.fromkeys(
        ("0.3.0", "0.3.1", "0.4.0"),
        ({"cniVersion", "interfaces", "ips", "routes", "dns"}, {"version", "interface", "address", "gateway"}),
    ),
    **dict.fromkeys(
        ("1.0.0", "1.1.0"),
        ({"cniVersion", "interfaces", "ips", "routes", "dns"}, {"interface", "address", "gateway"}),
    ),
}
"""The keys of each version's result, and of its addresses: no others, and none missing."""


@pytest.mark.parametrize("version", KEYS, ids=[f"C{number}-{version}" for number, version in enumerate(KEYS, 31)])
def test_a_result_has_the_shape_of_its_version(plugin: Plugin, netns: Make, version: str) -> None:
    name, path = netns()
    result = plugin.add(name, path, configuration=a_configuration("dual", version=version)).json
    keys, address_keys = KEYS[version]
    assert set(result) == keys
    assert result["cniVersion"] == version
    addresses = result["ips"] if "ips" in result else [result["ip4"], result["ip6"]]
    assert all(set(address) == address_keys for address in addresses)
    assert [address.get("version") for address in addresses] == (
        ["4", "6"] if "version" in address_keys else [None] * 2
    )
    for interface in result.get("interfaces", ()):
        assert set(interface) <= INTERFACE_KEYS
        assert interface["mac"] == interface["mac"].lower()
    for route in result.get("routes", ()):
        assert set(route) == {"dst", "gw"}


def test_c38_old_results_have_a_route_list_for_each_family(plugin: Plugin, netns: Make) -> None:
    result = plugin.add(*netns(), configuration=a_configuration("dual", version="0.2.0")).json
    assert result["ip4"]["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.22.0.1"}]
    assert result["ip6"]["routes"] == [{"dst": "::/0", "gw": result["ip6"]["gateway"]}]


@pytest.mark.parametrize("version", ["0.2.0", "1.1.0"])
def test_c39_a_second_address_of_a_family_is_refused(
    machine: Machine, plugin: Plugin, netns: Make, version: str
) -> None:
    """A result of 0.2.0 could tell the first alone; here a container has no second one in any version."""
    plugin.add(*netns())
    name, path = netns()
    before = machine.dump()
    asked = {"ips": ["10.20.101.1/16", "10.20.101.2/16"]}
    outcome = plugin.add(name, path, configuration=a_configuration(version=version, runtimeConfig=asked))
    assert outcome.code == 7
    machine.settles(before)


def test_c40_c41_c42_the_result_says_what_the_kernel_has(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, _ = netns()
    path = f"/run/netns/../netns/{name}"
    result = plugin.add(name, path, configuration=a_configuration("dual", version="1.1.0")).json
    bridge, veth, inside = result["interfaces"]
    assert "sandbox" not in bridge
    assert "sandbox" not in veth
    assert inside["sandbox"] == path
    kernel = machine.interface("eth0", inside=name)
    assert (kernel["address"], kernel["operstate"]) == (inside["mac"], "UP")
    assert machine.interface(bridge["name"])["address"] == bridge["mac"]
    host_end = machine.interface(veth["name"])
    assert (host_end["master"], host_end["address"], host_end["mtu"]) == (bridge["name"], veth["mac"], kernel["mtu"])
    told = {(ip["interface"], ip["address"]) for ip in result["ips"]}
    assert told == {
        (2, f"{entry['local']}/{entry['prefixlen']}") for entry in kernel["addr_info"] if entry["scope"] == "global"
    }
    for option, route in zip(("-4", "-6"), result["routes"], strict=True):
        (default,) = machine.json("ip", option, "-j", "route", "show", "default", inside=name)
        assert default["gateway"] == route["gw"]
    assert machine.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"


def test_c43_the_first_packets_arrive(machine: Machine, plugin: Plugin, netns: Make) -> None:
    (one, one_path), (two, two_path) = netns(), netns()
    configuration = a_configuration("dual", version="1.1.0")
    gateway = plugin.add(one, one_path, configuration=configuration).json["ips"][0]["gateway"]
    machine.serve_text("hello", 80, inside=one)
    other = plugin.add(two, two_path, configuration=configuration).json
    assert machine.ping(gateway, inside=two)
    address = machine.interface("eth0", inside=one)["addr_info"][0]["local"]
    assert machine.fetch(address, 80, inside=two) == "hello"
    assert machine.ping(other["ips"][0]["address"].partition("/")[0], inside=one)
    assert machine.ping(LAN_ADDRESS, inside=two)


@pytest.mark.parametrize("first", ["runtimeConfig", "args", "CNI_ARGS"])
def test_c44_the_mac_address_of_the_runtime_goes_first(
    machine: Machine, plugin: Plugin, netns: Make, first: str
) -> None:
    name, path = netns()
    sources: dict[str, Any] = {
        "runtimeConfig": {"runtimeConfig": {"mac": "02:00:00:00:44:01"}},
        "args": {"args": {"cni": {"mac": "02:00:00:00:44:02"}}},
        "CNI_ARGS": {},
    }
    order = list(sources)
    used = order[order.index(first) :]
    keys = {key: value for source in used for key, value in sources[source].items()}
    plugin.add(name, path, configuration=CONFIGURATION | keys, CNI_ARGS="IgnoreUnknown=1;MAC=02:00:00:00:44:03")
    expected = f"02:00:00:00:44:0{order.index(first) + 1}"
    assert machine.interface("eth0", inside=name)["address"] == expected


@pytest.mark.parametrize("source", ["runtimeConfig", "args", "CNI_ARGS"])
def test_c45_addresses_are_as_asked_for(plugin: Plugin, netns: Make, source: str) -> None:
    ips = ["10.22.0.45", "fd22::45/64"]
    keys: dict[str, Any] = {"runtimeConfig": {"runtimeConfig": {"ips": ips}}, "args": {"args": {"cni": {"ips": ips}}}}
    more = {"CNI_ARGS": "IP=" + ",".join(ips)} if source == "CNI_ARGS" else {}
    configuration = a_configuration("dual", version="1.1.0", **keys.get(source, {}))
    result = plugin.add(*netns(), configuration=configuration, **more).json
    assert [ip["address"] for ip in result["ips"]] == ["10.22.0.45/24", "fd22::45/64"]


IMPOSSIBLE = {
    "in-use": ("10.20.45.45", 102),
    "gateway": ("10.20.0.1", 102),
    "broadcast": ("10.20.255.255", 7),
    "outside": ("10.99.0.1", 7),
    "other-family": ("fd00::1", 7),
    "no-address": ("10.20", 7),
}


@pytest.mark.parametrize("case", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_c45_an_address_that_cannot_be_had_is_refused(
    machine: Machine, plugin: Plugin, netns: Make, case: tuple[str, int]
) -> None:
    address, code = case
    assert plugin.add(*netns(), configuration=CONFIGURATION | {"runtimeConfig": {"ips": ["10.20.45.45"]}}).status == 0
    name, path = netns()
    before = machine.dump()
    outcome = plugin.add(name, path, configuration=CONFIGURATION | {"runtimeConfig": {"ips": [address]}})
    assert outcome.code == code
    machine.settles(before)


@pytest.mark.parametrize(("text", "code"), [("FOO=BAR", 0), ("", 0), ("FOO", 4), ("A=B=C", 4), ("A=1;;B=2", 4)])
def test_c46_pairs_of_arguments(plugin: Plugin, netns: Make, text: str, code: int) -> None:
    outcome = plugin.add(*netns(), CNI_ARGS=text)
    assert (outcome.code if outcome.status else 0) == code


def test_c47_a_strangers_interface_is_left_alone(machine: Machine, plugin: Plugin, netns: Make) -> None:
    plugin.add(*netns())
    name, path = netns()
    machine.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other", inside=name)
    before, links = machine.dump(), machine.run("ip", "-o", "link", inside=name)
    outcome = plugin.add(name, path)
    assert outcome.code == 104
    assert "eth0" in outcome.json["msg"]
    assert plugin.add(name, path, "lo").code == 104
    assert plugin.delete(name, path).status == 0
    assert plugin.delete(name, path, "lo").status == 0
    assert machine.run("ip", "-o", "link", inside=name) == links
    machine.settles(before)


def test_c48_a_second_add_is_refused_and_the_first_goes_on(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    gateway = plugin.add(name, path).json["ips"][0]["gateway"]
    before = machine.dump()
    assert plugin.add(name, path).code == 100
    machine.settles(before)
    assert machine.ping(gateway, inside=name)


def test_c49_one_container_may_have_two_interfaces_in_a_network(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    addresses = {plugin.add(name, path, interface).address for interface in ("eth0", "eth1")}
    assert len(addresses) == 2
    assert len(machine.json("ip", "-j", "route", "show", "default", inside=name)) == 1
    assert plugin.delete(name, path, "eth1").status == 0
    assert [link["ifname"] for link in machine.json("ip", "-j", "link", inside=name)] == ["lo", "eth0"]
    assert machine.ping("10.20.0.1", inside=name)


def test_the_example_configuration_works(machine: Machine, netns: Make, runner: Callable[..., Runner]) -> None:
    name, path = netns()
    given = json.loads((PLUGIN.parent / "10-netagent.conflist").read_text())
    example = runner(*given["plugins"], name=given["name"], version=given["cniVersion"])
    result = example.add(name, path)
    assert machine.ping(result["ips"][0]["gateway"], inside=name)
    example.delete(name, path)


def test_a_configuration_may_name_one_of_our_networks_and_one_that_is_not_there_is_told_with_the_way_out(
    plugin: Plugin, netns: Make
) -> None:
    configuration = a_configuration("podnet", netagent={"network": "dual"})
    assert plugin.add(*netns(), configuration=configuration).address.startswith("10.22.0.")
    outcome = plugin.add(*netns(), configuration=a_configuration("nosuch"))
    assert outcome.code == 7
    assert "netagent network create nosuch" in outcome.json["details"]


def test_c50_networks_added_side_by_side_leave_one_default_route(
    machine: Machine, netns: Make, runner: Callable[..., Runner]
) -> None:
    name, path = netns()
    results = add_in_parallel([runner(name="app"), runner(name="dual")], name, path)
    assert {result["ips"][0]["interface"] for result in results} == {2}
    assert len(machine.json("ip", "-4", "-j", "route", "show", "default", inside=name)) == 1
    assert machine.ping("10.20.0.1", inside=name)
    assert machine.ping("10.22.0.1", inside=name)


def test_c51_the_result_so_far_is_handed_on(plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "sandbox": path, "vendor": 1}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "vendor": {"kept": 1},
    }
    result = plugin.add(name, path, configuration=CONFIGURATION | {"prevResult": before}).json
    assert result["vendor"] == {"kept": 1}
    assert result["interfaces"][0] == before["interfaces"][0]  # type: ignore[index]
    assert result["ips"][0] == before["ips"][0]  # type: ignore[index]
    assert result["interfaces"][result["ips"][1]["interface"]]["name"] == "eth0"


RESOLVERS = {
    "runtime": ({"servers": ["192.0.2.1"], "searches": ["a"], "options": ["ndots:2"]}, {"nameservers": ["192.0.2.2"]}),
    "configuration": (None, {"nameservers": ["192.0.2.2"], "domain": "b", "search": ["c"], "options": ["ndots:3"]}),
    "ours": (None, None),
}


@pytest.mark.parametrize("source", RESOLVERS)
def test_c52_what_the_result_says_of_dns(plugin: Plugin, netns: Make, source: str) -> None:
    runtime, configured = RESOLVERS[source]
    keys: dict[str, Any] = {"dns": configured} if configured else {}
    keys |= {"runtimeConfig": {"dns": runtime}} if runtime else {}
    expected = {
        "runtime": {"nameservers": ["192.0.2.1"], "search": ["a"], "options": ["ndots:2"]},
        "configuration": configured,
        "ours": {"nameservers": ["10.20.0.1"]},
    }
    assert plugin.add(*netns(), configuration=CONFIGURATION | keys).json["dns"] == expected[source]


def test_c53_masquerading_is_as_the_configuration_says_or_refused(
    machine: Machine, plugin: Plugin, netns: Make
) -> None:
    machine.netagent("network", "create", "--subnet", "10.26.0.0/24", "--opt", "masquerade=false", "plain")
    for network, masquerade, reached in (("app", True, True), ("plain", False, False)):
        name, path = netns()
        configuration = a_configuration(network, version="1.1.0", ipMasq=masquerade)
        assert plugin.add(name, path, configuration=configuration).status == 0
        assert machine.ping(LAN_ADDRESS, inside=name) is reached, "without it the answer finds no way back"
        outcome = plugin.add(*netns(), configuration=configuration | {"ipMasq": not masquerade})
        assert outcome.code == 7
        assert "ipMasq" in outcome.json["msg"]
        assert plugin.delete(name, path, configuration=configuration).status == 0
    machine.netagent("network", "rm", "plain")


def test_c54_an_add_that_was_answered_outlives_the_agent(machine: Machine, plugin: Plugin, netns: Make) -> None:
    plugin.add(*netns())
    name, path = netns()
    before = machine.dump()
    address = plugin.add(name, path).address
    machine.kill_agent()
    machine.start_agent()
    assert machine.interface("eth0", inside=name)["addr_info"][0]["local"] == address
    assert plugin.delete(name, path).status == 0
    machine.settles(before)


# Capabilities beyond the cases


def test_bandwidth_limits_both_directions(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    bandwidth = {"ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 4_000_000, "egressBurst": 800_000}
    outcome = plugin.add(name, path, configuration=CONFIGURATION | {"runtimeConfig": {"bandwidth": bandwidth}})
    assert outcome.status == 0
    shown = machine.run("tc", "qdisc", "show")
    assert "8Mbit" in shown
    assert "4Mbit" in shown


@pytest.mark.parametrize("rate", [-1, 7, "1"])
def test_a_bad_rate_is_refused(plugin: Plugin, netns: Make, rate: Any) -> None:
    bandwidth = {"runtimeConfig": {"bandwidth": {"ingressRate": rate}}}
    assert plugin.add(*netns(), configuration=CONFIGURATION | bandwidth).code == 7


def test_addresses_come_from_the_ranges_of_the_runtime(plugin: Plugin, netns: Make) -> None:
    ranges = [
        [{"subnet": "10.22.0.0/24", "rangeStart": "10.22.0.100", "rangeEnd": "10.22.0.101", "gateway": "10.22.0.1"}],
        [{"subnet": "fd22::/64", "rangeStart": "fd22::100", "rangeEnd": "fd22::1ff"}],
    ]
    configuration = a_configuration("dual", version="1.1.0", runtimeConfig={"ipRanges": ranges})
    results = [plugin.add(*netns(), configuration=configuration) for _ in range(3)]
    assert [r.address for r in results[:2]] == ["10.22.0.100", "10.22.0.101"]
    assert [r.json["ips"][1]["address"] for r in results[:2]] == ["fd22::100/64", "fd22::101/64"]
    assert results[2].code == 103


BAD_RANGES = {
    "outside": [[{"subnet": "10.99.0.0/24"}]],
    "backwards": [[{"subnet": "10.20.0.0/16", "rangeStart": "10.20.9.9", "rangeEnd": "10.20.9.1"}]],
    "other-gateway": [[{"subnet": "10.20.0.0/16", "gateway": "10.20.0.9"}]],
    "two-of-a-family": [[{"subnet": "10.20.1.0/24"}], [{"subnet": "10.20.2.0/24"}]],
    "mixed": [[{"subnet": "10.20.1.0/24"}, {"subnet": "fd22::/64"}]],
    "no-subnet": [[{"subnet": "x"}]],
}


@pytest.mark.parametrize("ranges", BAD_RANGES.values(), ids=BAD_RANGES)
def test_bad_ranges_are_refused(plugin: Plugin, netns: Make, ranges: list[Any]) -> None:
    assert plugin.add(*netns(), configuration=CONFIGURATION | {"runtimeConfig": {"ipRanges": ranges}}).code == 7


# Other IPAM plugins

IPAM = r"""
echo "$CNI_COMMAND" >> "$0.calls"
echo "words of $CNI_COMMAND" >&2
test ! -e "$0.fails-$CNI_COMMAND" || { echo '{"cniVersion":"1.1.0","code":107,"msg":"no more"}'; exit 1; }
test "$CNI_COMMAND" != ADD || cat "$0.result"
"""


class Ipam:
    """A script in CNI_PATH that notes its calls."""

    def __init__(self, fake_plugin: Callable[..., Any], tmp_path: Any) -> None:
        self.type = fake_plugin("book", IPAM)["type"]
        self._path = tmp_path / "bin" / "book"
        self.give({"address": "10.20.101.1/16"})

    def give(self, *ips: dict[str, str], **keys: Any) -> None:
        self._write("result", json.dumps({"cniVersion": "1.1.0", "ips": list(ips), **keys}))

    def fail(self, verb: str) -> None:
        self._write(f"fails-{verb}", "")

    @property
    def calls(self) -> list[str]:
        path = self._path.with_name("book.calls")
        return path.read_text().split() if path.exists() else []

    def _write(self, suffix: str, text: str) -> None:
        self._path.with_name(f"book.{suffix}").write_text(text)


@pytest.fixture
def ipam(fake_plugin: Callable[..., Any], tmp_path: Any) -> Ipam:
    return Ipam(fake_plugin, tmp_path)


@pytest.fixture
def delegating(runner: Callable[..., Runner], ipam: Ipam) -> Runner:
    """Return libcni for a list whose addresses come from the script."""
    return runner({"type": "netagent", "ipam": {"type": ipam.type}})


def test_c101_every_verb_is_forwarded(machine: Machine, netns: Make, delegating: Runner, ipam: Ipam) -> None:
    name, path = netns()
    ipam.give({"address": "10.20.101.7/16"}, dns={"nameservers": ["192.0.2.9"]})
    result = delegating.add(name, path)
    assert result["ips"][0]["address"] == "10.20.101.7/16"
    assert result["dns"] == {"nameservers": ["192.0.2.9"]}
    assert machine.ping("10.20.0.1", inside=name)
    delegating.check(name, path)
    delegating.status()
    delegating.collect([(name, "eth0")])
    delegating.delete(name, path)
    assert ipam.calls == ["ADD", "CHECK", "STATUS", "GC", "DEL"]


def test_c101_its_routes_and_gateway_are_used(
    machine: Machine, plugin: Plugin, netns: Make, delegating: Runner, ipam: Ipam
) -> None:
    """In place of the default route by the network's gateway, after a restart too; and CHECK misses them."""
    name, path = netns()
    elsewhere = {"dst": "172.30.0.0/16", "gw": "10.20.101.2"}
    ipam.give({"address": "10.20.101.7/16", "gateway": "10.20.101.1"}, routes=[{"dst": "0.0.0.0/0"}, elsewhere])
    result = delegating.add(name, path)
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.20.101.1"}, elsewhere]
    assert result["ips"][0]["gateway"] == "10.20.101.1"
    machine.stop_agent()
    machine.start_agent()
    routes = {r["dst"]: r.get("gateway") for r in machine.json("ip", "-j", "route", inside=name)}
    assert routes == {"default": "10.20.101.1", "172.30.0.0/16": "10.20.101.2", "10.20.0.0/16": None}
    delegating.check(name, path)
    machine.run("ip", "route", "delete", "172.30.0.0/16", inside=name)
    with pytest.raises(PluginFailed, match=r"172\.30\.0\.0/16"):
        delegating.check(name, path)
    delegating.delete(name, path)


def test_c101_a_gateway_alone_is_the_default_routes_and_routes_alone_are_all(
    machine: Machine, netns: Make, delegating: Runner, ipam: Ipam
) -> None:
    (one, one_path), (two, two_path) = netns(), netns()
    ipam.give({"address": "10.20.101.7/16", "gateway": "10.20.101.1"})
    assert delegating.add(one, one_path)["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.20.101.1"}]
    ipam.give({"address": "10.20.101.8/16"}, routes=[{"dst": "172.30.0.0/16"}])
    assert delegating.add(two, two_path)["routes"] == [{"dst": "172.30.0.0/16", "gw": "10.20.0.1"}]
    assert machine.run("ip", "route", "show", "default", inside=two) == ""
    for name, path in ((one, one_path), (two, two_path)):
        delegating.delete(name, path)


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "STATUS", "GC", "DEL"])
def test_c101_its_errors_are_returned_and_its_words_passed_on(
    machine: Machine, plugin: Plugin, netns: Make, delegating: Runner, ipam: Ipam, verb: str
) -> None:
    name, path = netns()
    configuration = CONFIGURATION | {"ipam": {"type": ipam.type}, "cni.dev/valid-attachments": []}
    directory = str(ipam._path.parent)
    if verb != "ADD":
        added = plugin.add(name, path, configuration=configuration, CNI_PATH=directory)
        configuration |= {"prevResult": added.json}
    ipam.fail(verb)
    outcome = plugin.call(verb, name, path, configuration=configuration, CNI_PATH=directory)
    assert outcome.code == 107
    assert "no more" in outcome.json["msg"]
    assert f"words of {verb}" in outcome.stderr
    if verb == "ADD":
        assert ipam.calls == ["ADD", "DEL"]
        assert [link["ifname"] for link in machine.json("ip", "-j", "link", inside=name)] == ["lo"]


@pytest.mark.parametrize(
    "given",
    [
        [],
        [{"address": "10.99.0.1/16"}],
        [{"address": "x"}],
        [{"address": "10.20.101.7/16", "gateway": "10.99.0.1"}],
        [{"address": "10.20.101.7/16", "gateway": "fd00::1"}],
        [{"address": "10.20.101.7/16"}, {"address": "10.20.101.8/16"}],
    ],
    ids=["nothing", "outside", "no-address", "gateway-outside", "gateway-of-other-family", "two-of-a-family"],
)
def test_c102_an_address_that_cannot_be_used_is_given_back(
    machine: Machine, plugin: Plugin, netns: Make, delegating: Runner, ipam: Ipam, given: list[dict[str, str]]
) -> None:
    plugin.add(*netns())
    name, path = netns()
    before = machine.dump()
    ipam.give(*given)
    with pytest.raises(PluginFailed) as failure:
        delegating.add(name, path)
    assert failure.value.code == 7
    assert ipam.calls == ["ADD", "DEL"]
    machine.settles(before)


def test_a_second_add_does_not_free_the_address_of_the_first(netns: Make, delegating: Runner, ipam: Ipam) -> None:
    name, path = netns()
    delegating.add(name, path)
    with pytest.raises(PluginFailed) as failure:
        delegating.add(name, path)
    assert failure.value.code == 100
    assert ipam.calls == ["ADD"]


def test_without_a_path_to_the_ipam_plugin_it_is_said(plugin: Plugin, netns: Make) -> None:
    configuration = CONFIGURATION | {"ipam": {"type": "book"}}
    outcome = plugin.add(*netns(), configuration=configuration, CNI_PATH="")
    assert outcome.code == 4
    assert "CNI_PATH" in outcome.json["msg"]
    assert plugin.add(*netns(), configuration=configuration, CNI_PATH="/nonexistent").code == 7


def test_the_real_host_local_plugin_gives_and_takes_back(
    machine: Machine, netns: Make, runner: Callable[..., Runner]
) -> None:
    (one, one_path), (two, two_path) = netns(), netns()
    host_local = {
        "type": "host-local",
        "subnet": "10.20.0.0/16",
        "rangeStart": "10.20.200.1",
        "rangeEnd": "10.20.200.1",
    }
    libcni = runner({"type": "netagent", "ipam": host_local}, version="1.0.0")
    assert libcni.add(one, one_path)["ips"][0]["address"] == "10.20.200.1/16"
    with pytest.raises(PluginFailed):
        libcni.add(two, two_path)
    libcni.delete(one, one_path)
    assert libcni.add(two, two_path)["ips"][0]["address"] == "10.20.200.1/16"
    libcni.delete(two, two_path)


def test_c104_an_old_configuration_with_ipam_alone_works(machine: Machine, netns: Make, plugin: Plugin) -> None:
    name, path = netns()
    configuration = {
        "name": "app",
        "type": "netagent",
        "ipam": {"type": "host-local", "subnet": "10.20.0.0/16", "rangeStart": "10.20.201.1"},
    }
    result = plugin.add(name, path, configuration=configuration, CNI_PATH="/usr/lib/cni").json
    assert result["ip4"]["ip"] == "10.20.201.1/16"
    assert machine.ping("10.20.0.1", inside=name)
    assert plugin.delete(name, path, configuration=configuration, CNI_PATH="/usr/lib/cni").status == 0
