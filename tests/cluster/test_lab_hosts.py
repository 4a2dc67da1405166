"""What a host of the lab is: a network, files and a name of its own on the machine's kernel."""

import os
import pty
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import netagent
from netagent.errors import NotFound, Unavailable
from netagent.lab.lab import Lab
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

SOURCE = Path(netagent.__file__).parents[1]
MTU = 1400
# Both without fragmentation: the IPv4 and IPv6 header take 20 and 40 bytes, the ICMP header 8.
LARGEST_PING = {"198.18.0.2": MTU - 28, "fd00:198:18::2": MTU - 48}


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """Two hosts; no test here needs an agent."""
    return make_lab(hosts=2, agents=False, mtu=MTU)


def cli(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from netagent.lab.cli import lab; lab()", *arguments]


def answers_ping(lab: Lab, address: str, *options: str) -> bool:
    return lab.host("h1").run("ping", "-c1", "-W2", *options, address, check=False).returncode == 0


@pytest.mark.parametrize("address", LARGEST_PING)
def test_underlay_carries_frames_of_its_mtu_and_none_larger(lab: Lab, address: str) -> None:
    assert answers_ping(lab, address, "-Mdo", f"-s{LARGEST_PING[address]}")
    assert not answers_ping(lab, address, "-Mdo", f"-s{LARGEST_PING[address] + 1}")


def test_host_has_its_own_name_and_interfaces(lab: Lab) -> None:
    host = lab.host("h2")
    assert host.run("hostname").stdout == "h2\n"
    assert {"eth0", "lo"} <= set(host.run("ls", "/sys/class/net").stdout.split())
    assert "198.18.0.2" in host.run("ip", "-br", "address", "show", "eth0").stdout


def test_host_reaches_nothing_but_the_underlay(lab: Lab) -> None:
    assert lab.host("h1").run("ip", "route").stdout.split()[0] == "198.18.0.0/24"
    assert "default" not in lab.host("h1").run("ip", "route").stdout


def test_host_sees_the_cgroups_of_the_machine(lab: Lab) -> None:
    """Looked at again where others make or remove some meanwhile."""
    mount = "/sys/fs/cgroup"
    assert eventually(
        lambda: {entry.name for entry in Path(mount).iterdir()} == set(lab.host("h1").run("ls", mount).stdout.split())
    )


@pytest.mark.parametrize(
    "directory",
    ["/run", "/var/lib/netagent", "/var/lib/cni", "/etc/netagent", "/etc/cni", "/etc/docker", "/opt/cni/bin"],
)
def test_files_of_a_host_are_its_own(lab: Lab, directory: str) -> None:
    lab.host("h1").run("touch", f"{directory}/mark")
    assert lab.host("h1").path(f"{directory}/mark").exists()
    assert not lab.host("h2").path(f"{directory}/mark").exists()
    assert not Path(directory, "mark").exists()


def test_netagent_and_the_cni_plugin_are_installed(lab: Lab) -> None:
    host = lab.host("h1")
    launcher = host.run("sh", "-c", "command -v netagent").stdout.strip()
    assert str(Path(sys.executable)) in host.path(launcher).read_text()
    assert host.path("/opt/cni/bin/netagent").read_bytes() == (SOURCE / "cni" / "netagent").read_bytes()
    assert os.access(host.path("/opt/cni/bin/netagent"), os.X_OK)


def test_labs_side_by_side_do_not_see_each_other(lab: Lab, make_lab: MakeLab) -> None:
    other = make_lab(hosts=1, agents=False)
    assert answers_ping(lab, "198.18.0.2")
    assert not answers_ping(other, "198.18.0.2", "-W1")
    lab.host("h1").run("touch", "/etc/netagent/side")
    assert not other.host("h1").path("/etc/netagent/side").exists()


def test_exec_returns_the_status_of_the_command(lab: Lab) -> None:
    argv = cli("exec", "--lab", lab.name, "h1", "--", "sh", "-c", "cat; exit 7")
    done = subprocess.run(
        argv, cwd=SOURCE, input="from outside", capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (7, "from outside")


@pytest.mark.parametrize(
    ("host", "command", "status"),
    [
        pytest.param("h1", "no-such-program", 127, id="no-program"),
        pytest.param("h1", "/etc", 126, id="not-executable"),
        pytest.param("h9", "true", 125, id="no-host"),
    ],
)
def test_exec_tells_its_own_failures_by_status(lab: Lab, host: str, command: str, status: int) -> None:
    argv = cli("exec", "--lab", lab.name, host, "--", command)
    done = subprocess.run(argv, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status
    assert command in done.stderr or host in done.stderr


def test_exec_keeps_the_terminal(lab: Lab) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs):
        argv = cli("exec", "--lab", lab.name, "h1", "--", "test", "-t", "0")
        assert subprocess.run(argv, cwd=SOURCE, stdin=theirs, check=False, timeout=60).returncode == 0


def test_unknown_host_is_named(lab: Lab) -> None:
    with pytest.raises(NotFound, match=r"'h3'.*h1 to h2"):
        lab.host("h3")


def test_who_enters_while_a_machine_boots_does_not_find_the_real_one(lab: Lab) -> None:
    host, over = lab.host("h2"), threading.Event()
    stray = Path(f"/run/stray-{lab.name}")

    def enter_again_and_again() -> None:
        while not over.is_set():
            host.run("sh", "-c", f"for n in $(seq 200); do : > {stray}; done", check=False)

    with ThreadPoolExecutor(2) as pool:
        entering = [pool.submit(enter_again_and_again) for _ in range(2)]
        try:
            for _ in range(10):
                host.power_off()
                host.power_on()
            assert not stray.exists()
        finally:
            over.set()
            stray.unlink(missing_ok=True)
    for each in entering:
        each.result()


def test_power_cut_takes_processes_and_network_and_leaves_the_disk(lab: Lab) -> None:
    host = lab.host("h2")
    host.run("touch", "/var/lib/netagent/kept", "/run/lost")
    host.run("ip", "link", "add", "na-left", "type", "bridge")
    with host.popen("sleep", "60") as running:
        host.power_off()
        assert running.wait(timeout=30) == -9
    assert not answers_ping(lab, "198.18.0.2", "-W1")
    host.power_on()
    assert eventually(lambda: answers_ping(lab, "198.18.0.2"))
    assert host.path("/var/lib/netagent/kept").exists()
    assert not host.path("/run/lost").exists()
    assert "na-left" not in host.run("ip", "link").stdout


def test_agent_that_ends_at_once_is_reported_with_its_last_words(lab: Lab) -> None:
    agent = lab.host("h1").agent
    agent.launch(options=["--no-such-option"])
    with pytest.raises(Unavailable, match=r"agent of h1 ended: .*--no-such-option"):
        agent.wait_ready()
    assert not agent.running
