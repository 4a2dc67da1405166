"""Published ports on [::1], which a process of its own forwards: the kernel cannot."""

import os
import signal
import sys
from pathlib import Path

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import fetches, netagent, run, serve_name
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

URL = "http://[::1]:4000/hostname"
ECHO = (
    "import socket;s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.bind(('',80))\nwhile 1:s.sendto(*s.recvfrom(99))"
)


@pytest.fixture(scope="module")
def host(make_lab: MakeLab) -> Host:
    lab: Lab = make_lab(hosts=2, agents=False)
    for each in lab.hosts:
        each.path("/etc/netagent/agent.toml").write_text("loopback_proxy = true\n")
        each.agent.launch()
    for each in lab.hosts:
        each.agent.wait_ready()
    host, _ = lab.hosts
    netagent(host, "network", "create", "--subnet", "10.55.0.0/24", "four")
    netagent(host, "network", "create", "--subnet", "10.56.0.0/24", "--subnet", "fd00:56::/64", "both")
    return host


def serve(host: Host, name: str, network: str, *options: str) -> None:
    serve_name(host, name, "--network", network, *options)


def forwarders(host: Host) -> list[tuple[int, str]]:
    """Return pid and user of each process of this host that forwards."""
    here = host.run("readlink", "/proc/self/ns/net").stdout.strip()
    lines = [line.split() for line in host.run("ps", "-eo", "pid=,user=,args=").stdout.splitlines()]
    found = [(int(line[0]), line[1]) for line in lines if line[-2:] == ["-m", "netagent.loopback"]]
    return [(pid, user) for pid, user in found if _namespace(pid) == here]


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except (FileNotFoundError, ProcessLookupError):  # it has just ended; it may be another lab's
        return ""


@pytest.mark.parametrize("network", ["four", "both"])
@pytest.mark.parametrize("where", ["", "[::1]:"])
def test_a_port_answers_on_loopback6_until_it_is_taken_back(host: Host, network: str, where: str) -> None:
    serve(host, "web", network, "-p", f"{where}4000:80")
    eventually(lambda: fetches(host, URL, "web"))
    assert fetches(host, "http://127.0.0.1:4000/hostname", "web") is not bool(where)
    listening = host.run("socat", "TCP6-LISTEN:4000,bind=[::1],reuseaddr", "STDOUT", check=False, timeout=30)
    assert "Address already in use" in listening.stderr
    netagent(host, "rm", "-f", "web")
    assert not fetches(host, URL, "web")
    serve(host, "next", network, "-p", f"{where}4000:80")
    eventually(lambda: fetches(host, URL, "next"))
    netagent(host, "rm", "-f", "next")
    assert not host.run("ss", "-Hln", "sport = :4000").stdout


def test_datagrams_are_forwarded_both_ways(host: Host) -> None:
    run(host, "echo", "--network", "four", "-p", "4001:80/udp", command=(sys.executable, "-c", ECHO))
    ask = "printf over-udp | socat -t 5 - UDP6:[::1]:4001"
    eventually(lambda: host.run("sh", "-c", ask, check=False).stdout == "over-udp")
    netagent(host, "rm", "-f", "echo")


def test_a_port_with_sources_is_served_only_if_loopback6_is_one(host: Host) -> None:
    serve(host, "web", "both", "-p", "4000:80@10.0.0.0/8", "-p", "4002:80@::1")
    eventually(lambda: fetches(host, "http://[::1]:4002/hostname", "web"))
    assert not fetches(host, URL, "web")
    netagent(host, "rm", "-f", "web")


def test_the_process_is_nobodys_comes_back_and_ends_with_the_last_port(host: Host) -> None:
    eventually(lambda: not forwarders(host))
    serve(host, "web", "both", "-p", "4000:80", "-p", "8000-8099:8000-8099")
    eventually(lambda: fetches(host, URL, "web"))
    ((pid, user),) = eventually(lambda: forwarders(host))
    assert user == "nobody"
    assert "CapEff:\t0000000000000000" in Path(f"/proc/{pid}/status").read_text()
    eventually(lambda: len(host.run("ss", "-Hltn", "src [::1]").stdout.splitlines()) >= 101)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: fetches(host, URL, "web"))
    netagent(host, "rm", "-f", "web")
    eventually(lambda: not forwarders(host))


def test_the_next_agent_forwards_again(host: Host) -> None:
    serve(host, "web", "both", "-p", "4000:80")
    eventually(lambda: fetches(host, URL, "web"))
    host.agent.stop()
    assert not forwarders(host)
    host.agent.launch()
    host.agent.wait_ready()
    eventually(lambda: fetches(host, URL, "web"))
    netagent(host, "rm", "-f", "web")
