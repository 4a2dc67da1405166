"""containerd on hosts of a cluster: ``ctr run --cni`` and pods by CRI, in networks that reach other hosts."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.lab.runtimes import Containerd, install_list, write_list
from tests.support.cri import Cri, connected
from tests.support.hosts import netagent, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

GRACE_S = 1
EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """Two hosts with the network ``app``, which containerd of h1 uses; on h2 runs ``peer``."""
    lab = make_lab(2, agents=False)
    for host in lab.hosts:
        host.path("/etc/netagent/agent.toml").write_text(f"[cni]\ngrace_s = {GRACE_S}\n")
        host.agent.start()
    netagent(lab.hosts[0], "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "app")
    eventually(lambda: "app" in netagent(lab.hosts[1], "network", "ls").stdout)
    run(lab.hosts[1], "peer", "--network", "app")
    return lab


@pytest.fixture(scope="module")
def h1(lab: Lab) -> Host:
    return lab.host("h1")


@pytest.fixture(scope="module")
def h2(lab: Lab) -> Host:
    return lab.host("h2")


@pytest.fixture(scope="module")
def containerd(h1: Host) -> Containerd:
    install_list(h1, EXAMPLES / "containerd" / "10-app.conflist")
    containerd = Containerd(h1)
    containerd.start()
    return containerd


@pytest.fixture(scope="module")
def cri(containerd: Containerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cri]:
    with connected(containerd.host.path(containerd.socket), tmp_path_factory.mktemp("cri")) as cri:
        yield cri


@pytest.fixture
def web(containerd: Containerd) -> Iterator["subprocess.Popen[str]"]:
    """The container ``web`` of containerd, which serves its files."""
    process = started(containerd, "web", "httpd", "-f", "-p", "80", "-h", "/etc")
    yield process
    containerd.ctr("task", "kill", "-s", "9", "web", check=False)
    process.wait(timeout=60)


def started(containerd: Containerd, name: str, *command: str) -> "subprocess.Popen[str]":
    """Start a container and return its ``ctr run`` once it runs, which is after it was attached."""
    process = containerd.run(name, *command)

    def is_running() -> bool:
        assert process.poll() is None
        tasks = map(str.split, containerd.ctr("task", "ls").stdout.splitlines())
        return any(words[0] == name and words[-1] == "RUNNING" for words in tasks)

    eventually(is_running)
    return process


def pings(host: Host, *command: str) -> None:
    """Wait until a ping is answered: other hosts hear of names a moment later."""
    eventually(lambda: host.run(*command, check=False).returncode == 0)


def attached(host: Host) -> list[str]:
    """Return the names of the containers that netagent knows on a host."""
    return netagent(host, "ps", "-a", "--format", "{{.Names}}").stdout.split()


def test_a_container_and_one_of_another_host_reach_each_other_by_name(
    containerd: Containerd, h2: Host, web: object
) -> None:
    pings(h2, "netagent", "exec", "peer", "--", "ping", "-c1", "-W1", "default-web")
    gateway = containerd.execute("web", "ip", "route").stdout.split()[2]
    peer = netagent(h2, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", "peer").stdout.strip()
    eventually(lambda: peer in containerd.execute("web", "nslookup", "peer", gateway, check=False).stdout)
    containerd.execute("web", "ping", "-c1", "-W1", peer)


def test_nothing_is_left_of_a_container_that_has_ended(containerd: Containerd, h1: Host) -> None:
    process = started(containerd, "brief", "sleep", "1000")
    assert "default-brief" in attached(h1)
    containerd.ctr("task", "kill", "-s", "9", "brief")
    process.wait(timeout=60)
    assert "default-brief" not in attached(h1)


def test_a_container_that_containerd_does_not_take_off_is_collected(containerd: Containerd, h1: Host) -> None:
    process = started(containerd, "lost", "sleep", "1000")
    assert "default-lost" in attached(h1)
    process.kill()
    process.wait()
    containerd.ctr("task", "rm", "-f", "lost")
    containerd.ctr("container", "rm", "lost")
    eventually(lambda: "default-lost" not in attached(h1), within=40)


def test_a_list_may_fix_the_address(containerd: Containerd, h1: Host, h2: Host) -> None:
    write_list(h1, "app", args={"cni": {"ips": ["192.168.0.77"]}})
    process = started(containerd, "fixed", "sleep", "1000")
    try:
        pings(h2, "netagent", "exec", "peer", "--", "ping", "-c1", "-W1", "192.168.0.77")
    finally:
        containerd.ctr("task", "kill", "-s", "9", "fixed", check=False)
        process.wait(timeout=60)
        write_list(h1, "app")


def test_a_pod_has_a_name_and_published_ports_until_it_is_stopped(cri: Cri, h1: Host, h2: Host) -> None:
    sandbox = cri.run_sandbox("shop", "front", ports={8088: 80}, cgroup=f"/{h1.seat.netns}")
    address = cri.address_of(sandbox)
    pings(h2, "netagent", "exec", "peer", "--", "ping", "-c1", "-W1", "shop.front")
    namespace = netagent(h1, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", attached(h1)[0]).stdout.strip()
    server = h1.popen("nsenter", f"--net={namespace}", "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
    eventually(lambda: h2.run("curl", "-s", "--max-time", "2", f"http://{h1.ip}:8088/hostname", check=False).stdout)
    server.kill()
    server.wait()
    assert netagent(h1, "dns", sandbox[:12]).stdout.split()[-1] == address
    cri.stop_sandbox(sandbox)
    assert attached(h1) == []
    cri.stop_sandbox(sandbox)
    cri.remove_sandbox(sandbox)


def test_a_pod_whose_port_is_taken_is_refused_in_words_that_name_the_port(cri: Cri, h1: Host) -> None:
    first = cri.run_sandbox("one", ports={8089: 80}, cgroup=f"/{h1.seat.netns}")
    with pytest.raises(grpc.RpcError) as refusal:
        cri.run_sandbox("two", ports={8089: 80}, cgroup=f"/{h1.seat.netns}")
    assert "8089 failed: port is already allocated" in str(refusal.value)
    assert attached(h1) == [f"one_default_{first[:12]}"]
    cri.stop_sandbox(first)
    cri.remove_sandbox(first)


def test_a_pod_is_held_to_the_bandwidth_of_its_annotations(cri: Cri, h1: Host) -> None:
    limits = {f"kubernetes.io/{way}-bandwidth": "10M" for way in ("ingress", "egress")}
    sandbox = cri.run_sandbox("slow", annotations=limits, cgroup=f"/{h1.seat.netns}")
    (network,) = json.loads(netagent(h1, "inspect", *attached(h1)).stdout)[0]["NetworkSettings"]["Networks"].values()
    assert (network["RateIn"], network["RateOut"]) == (10_000_000, 10_000_000)
    cri.stop_sandbox(sandbox)
    cri.remove_sandbox(sandbox)


def test_a_pod_outlives_the_agent(cri: Cri, h1: Host, h2: Host) -> None:
    sandbox = cri.run_sandbox("lasting", cgroup=f"/{h1.seat.netns}")
    address = cri.address_of(sandbox)
    h1.agent.restart()
    pings(h2, "netagent", "exec", "peer", "--", "ping", "-c1", "-W1", address)
    cri.stop_sandbox(sandbox)
    cri.remove_sandbox(sandbox)
    assert attached(h1) == []
