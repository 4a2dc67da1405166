"""CNI DEL, and what happens when many call at once or somebody dies (C63 to C75, C99, C100, C105)."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import STATE, Machine, Make, previous
from tests.support.cni import Outcome, Plugin, a_configuration
from tests.support.cni_runner import Runner
from tests.support.lab import eventually

pytestmark = pytest.mark.cluster

DONE = Outcome(status=0, stdout="", stderr="")
PORTS = {"runtimeConfig": {"portMappings": [{"hostPort": 4063, "containerPort": 80}]}}
CONFIGURATION = a_configuration(version="1.1.0", **PORTS)


@pytest.fixture(autouse=True)
def _warm(plugin: Plugin, netns: Make) -> None:
    """Have the network in the kernel, so that dumps differ by the test's container alone."""
    assert plugin.add(*netns()).status == 0


def test_c63_c64_delete_leaves_nothing_and_may_be_repeated(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    before = machine.dump()
    assert plugin.add(name, path, configuration=CONFIGURATION).status == 0
    assert machine.dump() != before
    for _ in range(4):
        assert plugin.delete(name, path, configuration=CONFIGURATION) == DONE
    machine.settles(before)
    assert [link["ifname"] for link in machine.json("ip", "-j", "link", inside=name)] == ["lo"]


GONE = (
    "C65-never-added",
    "C66-namespace-gone",
    "C67-no-namespace-named",
    "C70-other-network-named",
    "C70-no-such-network",
)


@pytest.mark.parametrize("how", GONE)
def test_delete_of_what_is_gone_frees_the_rest(machine: Machine, plugin: Plugin, netns: Make, how: str) -> None:
    name, path = netns()
    before = machine.dump()
    if "never-added" not in how:
        assert plugin.add(name, path, configuration=CONFIGURATION).status == 0
    if "namespace-gone" in how:
        machine.remove_netns(name)
    configuration: dict[str, Any] = dict(CONFIGURATION)
    if "other-network" in how:
        configuration |= {"netagent": {"network": "dual"}}
    if "no-such" in how:
        configuration |= {"name": "renamed"}
    assert plugin.delete(name, "" if "no-namespace" in how else path, configuration=configuration) == DONE
    machine.settles(before)


def test_c68_a_stranger_at_the_same_path_is_left_alone(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    assert plugin.add(name, path).status == 0
    machine.remove_netns(name)
    machine.make_netns(name)
    machine.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other", inside=name)
    links = machine.run("ip", "-o", "link", inside=name)
    assert plugin.delete(name, path) == DONE
    assert machine.run("ip", "-o", "link", inside=name) == links


@pytest.mark.parametrize(
    "result",
    [None, {}, {"cniVersion": "0.2.0", "ip4": {"ip": "192.0.2.1/24"}}, {"interfaces": [], "ips": 7}, [], "x"],
    ids=json.dumps,
)
def test_c69_delete_does_not_need_the_result_of_add(machine: Machine, plugin: Plugin, netns: Make, result: Any) -> None:
    name, path = netns()
    before = machine.dump()
    plugin.add(name, path, configuration=CONFIGURATION)
    assert plugin.delete(name, path, configuration=previous(CONFIGURATION, result)) == DONE
    machine.settles(before)


def test_c70_delete_without_the_bridge_succeeds(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    result = plugin.add(name, path, configuration=CONFIGURATION).json
    machine.run("ip", "link", "delete", result["interfaces"][0]["name"])
    assert plugin.delete(name, path, configuration=CONFIGURATION) == DONE


def test_c71_delete_without_an_agent_is_carried_out_at_its_start(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    before = machine.dump()
    plugin.add(name, path, configuration=CONFIGURATION)
    machine.kill_agent()
    assert plugin.delete(name, path, configuration=CONFIGURATION) == DONE
    machine.start_agent()
    machine.settles(before)
    assert machine.run("ls", f"{STATE}/cni-queue") == ""


def test_c71_delete_before_the_agents_first_start_after_a_reboot_is_carried_out(
    machine: Machine, plugin: Plugin, netns: Make
) -> None:
    """/run is empty then, and nothing tells the plugin where this agent keeps its state."""
    name, path = netns()
    before = machine.dump()
    plugin.add(name, path, configuration=CONFIGURATION)
    machine.kill_agent()
    machine.run("rm", "/run/netagent/cni-queue")
    assert plugin.delete(name, path, configuration=CONFIGURATION) == DONE
    assert machine.run("ls", "/var/lib/netagent/cni-queue")
    machine.start_agent()
    machine.settles(before)
    assert machine.run("ls", "/var/lib/netagent/cni-queue") == ""


def test_c71_delete_with_a_full_queue_may_be_tried_again(machine: Machine, plugin: Plugin) -> None:
    machine.stop_agent()
    machine.run("sh", "-c", f"cd {STATE}/cni-queue && for i in $(seq 256); do echo > full$i; done")
    assert plugin.delete("c71", "").code == 11
    machine.run("sh", "-c", f"rm {STATE}/cni-queue/full*")
    assert plugin.delete("c71", "") == DONE
    machine.start_agent()


@pytest.mark.parametrize("network", ["app", "wide"])
def test_c72_delete_while_the_store_is_away_succeeds(
    machine: Machine, plugin: Plugin, netns: Make, network: str
) -> None:
    (name, path), (other, other_path) = netns(), netns()
    configuration = a_configuration(network, version="1.1.0", **PORTS)
    plugin.add(other, other_path, configuration=a_configuration(network))
    before = machine.dump()
    plugin.add(name, path, configuration=configuration)
    machine.stop_etcd()
    try:
        assert plugin.delete(name, path, configuration=configuration) == DONE
        machine.settles(before, but="listening")
    finally:
        machine.start_etcd()
    eventually(lambda: plugin.add(name, path, configuration=configuration).status == 0)


def test_c73_delete_waits_for_an_add_that_is_on_its_way(machine: Machine, plugin: Plugin, netns: Make) -> None:
    name, path = netns()
    before = machine.dump()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10):
            adding = pool.submit(plugin.add, name, path, configuration=CONFIGURATION)
            deleting = pool.submit(plugin.delete, name, path, configuration=CONFIGURATION)
            assert adding.result().status == 0
            assert deleting.result() == DONE
            assert plugin.delete(name, path, configuration=CONFIGURATION) == DONE
    machine.settles(before)


@contextmanager
def hindered(machine: Machine, name: str, step: str) -> Iterator[None]:
    """Let an ADD for the container ``name`` fail at ``step`` within this block."""
    match step:
        case "namespace":
            machine.remove_netns(name)
        case "port":
            listener = machine.spawn("socat", "TCP-LISTEN:4063,fork", "SYSTEM:true")
            eventually(lambda: ":4063 " in machine.run("ss", "-tlnH"))
        case "store":
            machine.stop_etcd()
        case "kernel":
            machine.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other", inside=name)
    try:
        yield
    finally:
        if step == "port":
            listener.kill()
            listener.wait()
        if step == "store":
            machine.start_etcd()


FAILURES = {
    "configuration": (7, a_configuration("nosuch", version="1.1.0")),
    "namespace": (3, CONFIGURATION),
    "address": (102, a_configuration(version="1.1.0", runtimeConfig={"ips": ["10.20.0.1"]})),
    "port": (101, CONFIGURATION),
    "store": (11, a_configuration("wide", version="1.1.0", runtimeConfig={"ips": ["10.23.0.9"]})),
    "kernel": (104, CONFIGURATION),
}


@pytest.mark.parametrize("step", FAILURES)
def test_c74_delete_after_an_add_that_failed_at_any_step_leaves_nothing(
    machine: Machine, plugin: Plugin, netns: Make, step: str
) -> None:
    """What a kill at each single step leaves, tests/cluster/test_crash_endpoints.py shows for this very ADD."""

    def stored() -> set[str]:
        lines = machine.run("etcdctl", "get", "--prefix", "/netagent/v1/").splitlines()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        return {f"{key} {value}" for key, value in pairs if "/live/" not in key}

    code, configuration = FAILURES[step]
    neighbour, where = netns()
    plugin.add(neighbour, where, configuration=a_configuration("wide"))
    name, path = netns()
    eventually(lambda: any(neighbour in record for record in stored()))
    before, records = machine.dump(), stored()
    with hindered(machine, name, step):
        assert plugin.add(name, path, configuration=configuration).code == code
    assert plugin.delete(name, path, configuration=configuration) == DONE
    machine.settles(before)
    # Records of what earlier tests made may go meanwhile.
    eventually(lambda: stored() <= records)
    assert any(neighbour in record for record in stored())


def test_c75_a_delete_that_fails_says_nothing_that_is_taken_for_success(machine: Machine, plugin: Plugin) -> None:
    machine.stop_agent()
    queues = {"NETAGENT_CNI_QUEUE": "/proc/nothing/queue"}
    outcome = plugin.delete("c75", "", **queues)
    assert outcome.code == 11
    assert "not found" not in outcome.stdout
    assert "no such file" not in outcome.stdout.lower()
    machine.start_agent()


def test_c99_two_hundred_at_once_get_two_hundred_addresses(machine: Machine, plugin: Plugin) -> None:
    before = machine.dump()
    names = [f"many{number}" for number in range(200)]
    script = "for i in $(seq 0 199); do ip netns {} many$i; done"
    machine.run("sh", "-c", script.format("add"))
    with ThreadPoolExecutor(200) as pool:
        added = list(pool.map(lambda name: plugin.add(name, f"/run/netns/{name}"), names))
        addresses = {outcome.address for outcome in added}
        kernel = {machine.interface("eth0", inside=name)["addr_info"][0]["local"] for name in names[::20]}
        deleted = list(pool.map(lambda name: plugin.delete(name, f"/run/netns/{name}"), names))
    machine.run("sh", "-c", script.format("delete"))
    assert len(addresses) == 200
    assert kernel <= addresses
    assert deleted == [DONE] * 200
    machine.settles(before)


def test_c100_a_plugin_killed_at_any_moment_leaves_nothing_after_delete(
    machine: Machine, plugin: Plugin, netns: Make
) -> None:
    name, path = netns()
    before = machine.dump()
    for delay_ms in range(4, 24):
        process = plugin.start("ADD", name, path)
        assert process.stdin is not None
        process.stdin.write(json.dumps(CONFIGURATION))
        process.stdin.close()
        try:
            process.wait(delay_ms / 1000)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        assert plugin.delete(name, path, configuration=CONFIGURATION) == DONE
    machine.settles(before)


def test_c105_a_broken_cache_keeps_nothing_from_being_freed(
    machine: Machine, netns: Make, runner: Callable[..., Runner], tmp_path: Path
) -> None:
    name, path = netns()
    before = machine.dump()
    libcni = runner()
    libcni.add(name, path, portMappings=[{"hostPort": 4105, "containerPort": 80}])
    (entry,) = (tmp_path / "cni" / "results").iterdir()
    entry.write_text('{"kind": "cniC')
    libcni.delete(name, path)
    machine.settles(before)


def test_what_another_ipam_plugin_gave_is_released_by_the_agents_own_collection(
    machine: Machine, netns: Make, runner: Callable[..., Runner]
) -> None:
    (one, one_path), (two, two_path) = netns(), netns()
    only = {"rangeStart": "10.20.202.1", "rangeEnd": "10.20.202.1"}
    libcni = runner(
        {"type": "netagent", "ipam": {"type": "host-local", "subnet": "10.20.0.0/16", **only}}, version="1.0.0"
    )
    libcni.add(one, one_path)
    machine.remove_netns(one)

    def is_free() -> bool:
        return not any("10.20.202.1" in line for line in machine.run("ls", "/var/lib/cni/networks/app").splitlines())

    eventually(is_free, within=20)
    eventually(lambda: one not in machine.netagent("ps", "--format", "{{.Names}}").split())
    assert libcni.add(two, two_path)["ips"][0]["address"] == "10.20.202.1/16"
    libcni.delete(two, two_path)
