"""How nerdctl and CRI-O call plugins, which are not on this machine: their arguments, their spelling, their order.

See containerd/nerdctl, pkg/ocihook (createRuntime, postStop) and containerd/go-cni; cri-o/ocicni, pkg/ocicni.
"""

import hashlib
import json
from collections.abc import Callable

import pytest

from tests.conformance.conftest import Machine, Make
from tests.support.cni_runner import Runner, add_in_parallel
from tests.support.lone_host import ADDRESS

pytestmark = pytest.mark.cluster

MakeRunner = Callable[..., Runner]


def hex_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def names_in(machine: Machine) -> list[str]:
    return machine.netagent("ps", "-a", "--format", "{{.Names}}").split()


def test_nerdctl_runs_a_container_with_ports_an_address_and_a_host_name(
    machine: Machine, netns: Make, runner: MakeRunner
) -> None:
    name, _ = netns()
    sleeper = machine.spawn("sleep", "1000", inside=name)
    container = f"default-{hex_id(name)}"
    nerdctl = runner(version="1.0.0", arguments="IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=front;IP=10.20.0.77")
    path = f"/proc/{sleeper.pid}/ns/net"
    ports = [{"HostPort": 4090, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "0.0.0.0"}]
    result = nerdctl.add(container, path, portMappings=ports)
    assert result["ips"][0]["address"] == "10.20.0.77/16"
    machine.serve_text("hello", 80, inside=name)
    assert machine.fetch(ADDRESS, 4090, inside="lan") == "hello"
    for known in ("front", hex_id(name)[:12]):
        assert "10.20.0.77" in machine.netagent("dns", known)
    sleeper.kill()
    sleeper.wait()
    nerdctl.delete(container, path)
    assert container not in names_in(machine)


def test_nerdctl_joins_several_networks_at_once_and_leaves_them_one_by_one(
    machine: Machine, netns: Make, runner: MakeRunner
) -> None:
    name, path = netns()
    container = f"default-{hex_id(name)}"
    lists = [runner(name=network, version="1.0.0") for network in ("app", "dual")]
    add_in_parallel(lists, container, path)
    assert {"eth0", "eth1"} <= {link["ifname"] for link in machine.json("ip", "-j", "link", inside=name)}
    for index, nerdctl in enumerate(lists):
        nerdctl.delete(container, path, f"eth{index}")
    assert container not in names_in(machine)


def test_cri_o_makes_a_pod_asks_for_its_state_and_deletes_it_twice(
    machine: Machine, netns: Make, runner: MakeRunner
) -> None:
    name, path = netns()
    sandbox = hex_id(name)
    pod = f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME=front;K8S_POD_INFRA_CONTAINER_ID={sandbox};K8S_POD_UID=u-1"
    cri_o = runner(arguments=f"IgnoreUnknown=1;{pod}")
    cri_o.status()
    cri_o.collect([])
    ports = [{"hostPort": 4091, "containerPort": 80, "protocol": "tcp", "hostIP": ""}]
    rates = {"ingressRate": 10_000_000, "ingressBurst": 4294967295, "egressRate": 0, "egressBurst": 0}
    result = cri_o.add(
        sandbox, path, portMappings=ports, bandwidth=rates, ips=["10.20.0.78"], cgroupPath="kubepods.slice"
    )
    cri_o.check(sandbox, path)
    assert result["ips"][0]["address"] == "10.20.0.78/16"
    assert "10.20.0.78" in machine.netagent("dns", "front.shop")
    # CRI-O keeps host ports itself, and binds them once the plugin has answered.
    holder = machine.spawn("socat", "TCP-LISTEN:4091,fork", "SYSTEM:echo CRI-O")
    machine.serve_text("hello", 80, inside=name)
    assert machine.fetch(ADDRESS, 4091, inside="lan") == "hello"
    assert holder.poll() is None
    holder.kill()
    cri_o.collect([(sandbox, "eth0")])
    assert f"front_shop_{sandbox[:12]}" in names_in(machine)
    for _ in range(2):
        cri_o.delete(sandbox, path)
    assert f"front_shop_{sandbox[:12]}" not in names_in(machine)


def test_cri_o_after_a_crash_collects_the_pods_it_has_forgotten(
    machine: Machine, netns: Make, runner: MakeRunner
) -> None:
    name, path = netns()
    cri_o = runner(arguments=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}")
    cri_o.add(hex_id(name), path)
    assert any(known.startswith(f"{name}_shop") for known in names_in(machine))
    cri_o.collect([])
    assert not any(known.startswith(f"{name}_shop") for known in names_in(machine))
    listed = json.loads(machine.run("ip", "-j", "link", inside=name))
    assert [link["ifname"] for link in listed if link["ifname"].startswith("eth")] == []
