"""CNI end to end: the plugin's file, a real agent on a machine of its own, the kernel and traffic."""

import itertools
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.cni import PLUGIN, Plugin, a_configuration
from tests.support.cni_runner import Runner
from tests.support.lab import eventually
from tests.support.lone_host import ADDRESS, LAN_ADDRESS, LoneHost

pytestmark = pytest.mark.cluster

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneHost]:
    """Yield a machine with an agent and the networks ``app`` and, with six addresses, ``tiny``."""
    with LoneHost(tmp_path_factory.mktemp("lone") / "agent.log") as machine:
        machine.start_agent()
        machine.netagent("network", "create", "--subnet", "10.20.0.0/16", "app")
        machine.netagent("network", "create", "--subnet", "10.21.0.0/29", "tiny")
        yield machine
        log = machine.log.read_text()
        assert "Traceback" not in log, log[log.index("Traceback") :][:4000]


@pytest.fixture
def plugin(host: LoneHost) -> Plugin:
    return host.plugin


@pytest.fixture
def netns(host: LoneHost, plugin: Plugin) -> Iterator[Callable[[], tuple[str, str]]]:
    """Yield a function that makes a container: its id and its namespace, both gone after the test."""
    made: list[str] = []

    def make() -> tuple[str, str]:
        name = f"c{next(_numbers)}"
        made.append(name)
        return name, host.make_netns(name)

    yield make
    for name in made:
        # The name of no network: whatever the container is in.
        assert plugin.delete(name, "", configuration=a_configuration("any")).status == 0
        host.remove_netns(name)


def ports(*mappings: tuple[int, int], **more: Any) -> dict[str, Any]:
    return {"portMappings": [{"hostPort": host, "containerPort": inside, **more} for host, inside in mappings]}


def interface(host: LoneHost, name: str, *, inside: str = "") -> dict[str, Any]:
    (found,) = host.json("ip", "-j", "-d", "address", "show", "dev", name, inside=inside)
    assert isinstance(found, dict)
    return found


def settles(host: LoneHost, before: dict[str, Any]) -> None:
    """Wait until the machine is as it was; the kernel deletes links some moments after an answer."""

    def same() -> bool:
        assert host.dump() == before
        return True

    eventually(same, within=5)


Make = Callable[[], tuple[str, str]]


def test_a_container_reaches_its_gateway_with_its_first_packet(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    result = plugin.add(name, path).json
    assert host.ping(result["ips"][0]["gateway"], inside=name)
    assert host.ping(LAN_ADDRESS, inside=name), "masqueraded, the packet finds its way back"


def test_containers_reach_one_another(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    (one, one_path), (two, two_path) = netns(), netns()
    one_address = plugin.add(one, one_path).address
    two_address = plugin.add(two, two_path).address
    assert one_address != two_address
    assert host.ping(two_address, inside=one)
    assert host.ping(one_address, inside=two)


@pytest.mark.parametrize("version", VERSIONS[2:])
def test_the_result_tells_what_the_kernel_has(host: LoneHost, plugin: Plugin, netns: Make, version: str) -> None:
    name, _ = netns()
    odd_path = f"/run/netns/../netns/{name}"
    result = plugin.add(name, odd_path, configuration=a_configuration(version=version)).json
    assert result["cniVersion"] == version
    bridge, veth, inside = result["interfaces"]
    assert inside == {"name": "eth0", "mac": inside["mac"], "sandbox": odd_path}
    kernel_inside = interface(host, "eth0", inside=name)
    assert kernel_inside["address"] == inside["mac"]
    assert kernel_inside["operstate"] == "UP"
    assert interface(host, bridge["name"])["address"] == bridge["mac"]
    assert interface(host, veth["name"])["master"] == bridge["name"]
    assert interface(host, veth["name"])["mtu"] == kernel_inside["mtu"]
    (address,) = result["ips"]
    assert address["interface"] == 2
    (inet,) = [entry for entry in kernel_inside["addr_info"] if entry["family"] == "inet"]
    assert address["address"] == f"{inet['local']}/{inet['prefixlen']}"
    assert address.get("version") == ("4" if version < "1.0.0" else None)
    (route,) = host.json("ip", "-j", "route", "show", "default", inside=name)
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": route["gateway"]}]
    assert route["gateway"] == address["gateway"]


@pytest.mark.parametrize("version", VERSIONS[:2])
def test_the_first_versions_get_their_result(host: LoneHost, plugin: Plugin, netns: Make, version: str) -> None:
    name, path = netns()
    result = plugin.add(name, path, configuration=a_configuration(version=version)).json
    assert result["cniVersion"] == version
    assert host.ping(result["ip4"]["gateway"], inside=name)


def test_a_configuration_may_name_one_of_our_networks(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    configuration = a_configuration("podnet", netagent={"network": "bridge"})
    assert host.ping(plugin.add(name, path, configuration=configuration).json["ips"][0]["gateway"], inside=name)


def test_the_example_configuration_list_works(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    given = json.loads((Path(__file__).parents[2] / "cni" / "10-netagent.conflist").read_text())
    (entry,) = given["plugins"]
    configuration = {
        "cniVersion": given["cniVersion"],
        "name": given["name"],
        **entry,
        "runtimeConfig": ports((4001, 80)),
    }
    assert host.ping(plugin.add(name, path, configuration=configuration).json["ips"][0]["gateway"], inside=name)


def test_a_second_interface_has_an_address_of_its_own(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    first = plugin.add(name, path).address
    second = plugin.add(name, path, "net1", configuration=a_configuration("tiny")).json
    assert second["ips"][0]["address"].startswith("10.21.0.")
    assert interface(host, "net1", inside=name)["operstate"] == "UP"
    assert plugin.delete(name, path, "net1", configuration=a_configuration("tiny")).status == 0
    assert not host.succeeds("ip", "link", "show", "net1", inside=name)
    gateway = host.json("ip", "-j", "route", "show", "default", inside=name)[0]["gateway"]
    assert host.ping(gateway, inside=name), f"the first interface ({first}) goes on working"


def test_address_and_mac_are_as_asked_for(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    configuration = a_configuration(runtimeConfig={"ips": ["10.20.7.7/16"], "mac": "02:00:00:00:07:07"})
    result = plugin.add(name, path, configuration=configuration).json
    assert result["ips"][0]["address"] == "10.20.7.7/16"
    inside = interface(host, "eth0", inside=name)
    assert inside["address"] == result["interfaces"][2]["mac"] == "02:00:00:00:07:07"
    assert host.ping("10.20.0.1", inside=name)


# Published ports


def test_a_mapped_port_is_reached_from_everywhere(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    (name, path), (other, other_path) = netns(), netns()
    configuration = a_configuration(runtimeConfig=ports((4080, 80)))
    address = plugin.add(name, path, configuration=configuration).address
    plugin.add(other, other_path)
    host.serve_text("hello", 80, inside=name)
    reached = {
        "from another machine": host.fetch(ADDRESS, 4080, inside="lan"),
        "from the host": host.fetch(ADDRESS, 4080),
        "from the host by loopback": host.fetch("127.0.0.1", 4080),
        "from another container": host.fetch(ADDRESS, 4080, inside=other),
        "from itself": host.fetch(ADDRESS, 4080, inside=name),
        "without the mapping": host.fetch(address, 80, inside=other),
    }
    assert reached == dict.fromkeys(reached, "hello")
    assert plugin.delete(name, path).status == 0
    assert host.fetch(ADDRESS, 4080, inside="lan") == ""


def test_a_port_of_another_container_is_refused_and_changes_nothing(
    host: LoneHost, plugin: Plugin, netns: Make
) -> None:
    (name, path), (other, other_path) = netns(), netns()
    configuration = a_configuration(runtimeConfig=ports((4081, 80)))
    assert plugin.add(name, path, configuration=configuration).status == 0
    before = host.dump()
    outcome = plugin.add(other, other_path, configuration=configuration)
    assert outcome.code == 101
    assert "4081" in outcome.json["msg"]
    settles(host, before)
    udp = a_configuration(runtimeConfig=ports((4081, 80), protocol="udp"))
    assert plugin.add(other, other_path, configuration=udp).status == 0


def test_a_port_of_a_process_is_refused(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    listener = host.spawn("socat", "TCP-LISTEN:4082,fork", "SYSTEM:true")
    eventually(lambda: ":4082 " in host.run("ss", "-tlnH"))
    configuration = a_configuration(runtimeConfig=ports((4082, 80)))
    assert plugin.add(name, path, configuration=configuration).code == 101
    listener.kill()
    listener.wait()
    assert plugin.add(name, path, configuration=configuration).status == 0


# Chains


def test_a_chain_with_other_plugins_hands_results_on(host: LoneHost, netns: Make, tmp_path: Path) -> None:
    name, path = netns()
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}, "mtu": 1400}
    runner = Runner(
        conflist={"cniVersion": "1.0.0", "name": "app", "plugins": [{"type": "netagent"}, tuning]},
        path=[PLUGIN.parent, Path("/usr/lib/cni")],
        cache=tmp_path,
        prefix=host.prefix,
    )
    result = runner.add(name, path)
    assert [entry["name"] for entry in result["interfaces"]][2] == "eth0"
    assert interface(host, "eth0", inside=name)["mtu"] == 1400
    assert host.ping(result["ips"][0]["gateway"], inside=name)
    runner.delete(name, path)
    assert not host.succeeds("ip", "link", "show", "eth0", inside=name)


def test_a_chain_that_netagent_joins_keeps_what_was_there(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    before = {"cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": path}], "vendor": {"kept": 1}}
    result = plugin.add(name, path, configuration=a_configuration(prevResult=before)).json
    assert result["vendor"] == {"kept": 1}
    assert [entry["name"] for entry in result["interfaces"]][0::3] == ["lo", "eth0"]
    assert result["interfaces"][result["ips"][0]["interface"]]["name"] == "eth0"


# What is refused


def test_a_second_add_is_refused_and_the_first_goes_on_working(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    result = plugin.add(name, path).json
    before = host.dump()
    assert plugin.add(name, path).code == 100
    settles(host, before)
    assert host.ping(result["ips"][0]["gateway"], inside=name)


def test_a_strangers_interface_is_left_alone(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    plugin.add(*netns())
    name, path = netns()
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other", inside=name)
    before = host.dump()
    links = host.run("ip", "-o", "link", inside=name)
    outcome = plugin.add(name, path)
    assert outcome.code == 104
    assert "eth0" in outcome.json["msg"]
    assert plugin.delete(name, path).status == 0
    assert host.run("ip", "-o", "link", inside=name) == links
    settles(host, before)


@pytest.mark.parametrize(
    ("address", "code"),
    [("10.20.9.9", 102), ("10.20.0.1", 102), ("10.20.255.255", 7), ("10.99.0.1", 7), ("fd00::1", 7)],
    ids=["in-use", "gateway", "broadcast", "outside", "other-family"],
)
def test_an_address_that_cannot_be_had_is_refused(
    host: LoneHost, plugin: Plugin, netns: Make, address: str, code: int
) -> None:
    (name, path), (other, other_path) = netns(), netns()
    taken = a_configuration(runtimeConfig={"ips": ["10.20.9.9"]})
    assert plugin.add(name, path, configuration=taken).status == 0
    before = host.dump()
    outcome = plugin.add(other, other_path, configuration=a_configuration(runtimeConfig={"ips": [address]}))
    assert outcome.code == code
    settles(host, before)


def test_an_exhausted_network_is_said(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    outcomes = []
    for _ in range(7):
        outcomes.append(plugin.add(*netns(), configuration=a_configuration("tiny")))
        if outcomes[-1].status:
            break
    assert outcomes[-1].code == 103
    assert len(outcomes) > 3


def test_an_unknown_network_is_said_with_the_way_out(plugin: Plugin, netns: Make) -> None:
    outcome = plugin.add(*netns(), configuration=a_configuration("nosuch"))
    assert outcome.code == 7
    assert "netagent network create nosuch" in outcome.json["details"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/run/netns/nosuch", 3),
        ("/run/cni-test/dangling", 3),
        ("/run/cni-test/file", 8),
        ("/run/cni-test", 8),
        ("/run/cni-test/fifo", 8),
        ("/dev/loop0", 8),
        ("/dev/zero", 8),
        ("/proc/1/ns/net", 8),
        ("/proc/self/ns/net", 8),
        ("/proc/self/ns/user", 8),
        ("/proc/self/ns/mnt", 8),
        ("/proc/self/ns/pid", 8),
        ("netns/c1", 4),
    ],
)
@pytest.mark.timeout(20)
def test_what_is_no_containers_namespace_is_refused(host: LoneHost, plugin: Plugin, path: str, code: int) -> None:
    host.run("mkdir", "-p", "/run/cni-test")
    host.run("touch", "/run/cni-test/file")
    host.run("ln", "-sfn", "/nonexistent", "/run/cni-test/dangling")
    if not host.succeeds("test", "-p", "/run/cni-test/fifo"):
        host.run("mkfifo", "/run/cni-test/fifo")
    before = host.dump()
    if path == "/proc/1/ns/net":
        # The machine's own namespace is another machine's to this agent; its own is that of its own process.
        path = f"/proc/{host.agent_pid}/ns/net"
    assert plugin.add("c0", path).code == code
    settles(host, before)


# DEL


def test_delete_leaves_nothing(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    warm, warm_path = netns()
    plugin.add(warm, warm_path)
    before = host.dump()
    name, path = netns()
    configuration = a_configuration(runtimeConfig=ports((4083, 80), (4084, 81)))
    assert plugin.add(name, path, configuration=configuration).status == 0
    assert host.dump() != before
    for _ in range(3):
        outcome = plugin.delete(name, path, configuration=configuration)
        assert (outcome.status, outcome.stdout, outcome.stderr) == (0, "", "")
    settles(host, before)
    assert [link["ifname"] for link in host.json("ip", "-j", "link", inside=name)] == ["lo"]


@pytest.mark.parametrize("how", ["namespace-gone", "no-namespace-named", "never-added", "network-renamed"])
def test_delete_of_what_is_gone_succeeds_and_frees_the_rest(
    host: LoneHost, plugin: Plugin, netns: Make, how: str
) -> None:
    plugin.add(*netns())
    before = host.dump()
    name, path = netns()
    if how != "never-added":
        assert plugin.add(name, path).status == 0
    if how == "namespace-gone":
        host.remove_netns(name)
    configuration = a_configuration("renamed" if how == "network-renamed" else "app")
    outcome = plugin.delete(name, "" if how == "no-namespace-named" else path, configuration=configuration)
    assert (outcome.status, outcome.stdout) == (0, "")
    settles(host, before)


def test_delete_leaves_a_stranger_at_the_same_path_alone(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    assert plugin.add(name, path).status == 0
    host.remove_netns(name)
    host.make_netns(name)
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other", inside=name)
    links = host.run("ip", "-o", "link", inside=name)
    assert plugin.delete(name, path).status == 0
    assert host.run("ip", "-o", "link", inside=name) == links


# Many at once, and the agent away


def test_fifty_adds_at_once_get_fifty_addresses(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    plugin.add(*netns())
    before = host.dump()
    containers = [netns() for _ in range(50)]
    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(lambda container: plugin.add(*container), containers))
        addresses = [outcome.address for outcome in outcomes]
        assert len(set(addresses)) == 50
        assert all(host.ping("10.20.0.1", inside=name) for name, _ in containers[::10])
        deleted = list(pool.map(lambda container: plugin.delete(*container), containers))
    assert all(outcome.status == 0 for outcome in deleted)
    settles(host, before)


def test_a_delete_while_the_agent_is_dead_is_carried_out_at_its_start(
    host: LoneHost, plugin: Plugin, netns: Make
) -> None:
    plugin.add(*netns())
    before = host.dump()
    (kept, kept_path), (gone, gone_path) = netns(), netns()
    kept_address = plugin.add(kept, kept_path).address
    assert plugin.add(gone, gone_path, configuration=a_configuration(runtimeConfig=ports((4085, 80)))).status == 0
    host.kill_agent()
    outcome = plugin.delete(gone, gone_path)
    assert (outcome.status, outcome.stdout) == (0, "")
    assert host.ping("10.20.0.1", inside=kept), "the data path does not need the agent"
    host.start_agent()
    assert not host.succeeds("ip", "link", "show", "eth0", inside=gone)
    assert host.ping("10.20.0.1", inside=kept)
    assert interface(host, "eth0", inside=kept)["addr_info"][0]["local"] == kept_address
    assert plugin.delete(kept, kept_path).status == 0
    settles(host, before)
    assert host.run("ls", "/var/lib/netagent/cni-queue") == ""


def test_an_add_waits_for_an_agent_that_restarts(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    host.stop_agent()
    host.start_agent(wait=False)
    result = plugin.add(name, path).json
    eventually(host.serves)
    assert host.ping(result["ips"][0]["gateway"], inside=name)


def test_a_plugin_killed_at_any_moment_leaves_nothing_after_delete(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    plugin.add(*netns())
    before = host.dump()
    name, path = netns()
    text = json.dumps(a_configuration(runtimeConfig=ports((4086, 80))))
    for delay_ms in range(4, 24):
        process = plugin.start("ADD", name, path)
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        try:
            process.wait(delay_ms / 1000)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        assert plugin.delete(name, path).status == 0
    settles(host, before)
    assert plugin.add(name, path).status == 0


def test_an_agent_killed_at_any_moment_leaves_nothing_after_delete(host: LoneHost, plugin: Plugin, netns: Make) -> None:
    plugin.add(*netns())
    before = host.dump()
    name, path = netns()
    configuration = a_configuration(runtimeConfig=ports((4087, 80)))
    for delay_ms in (6, 9, 12, 15):
        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(plugin.add, name, path, configuration=configuration)
            time.sleep(delay_ms / 1000)
            host.kill_agent()
            host.start_agent()
            adding.result()
        assert plugin.delete(name, path).status == 0
        settles(host, before)
