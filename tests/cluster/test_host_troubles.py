"""Troubles of one host.

A full disk, no descriptors to spare, a log that nobody reads, a table of connections that fills, a foreign tunnel, and
what others hold of a container that goes.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netagent.lab.host import Host
from tests.support.hosts import address, inspect, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

STATE = "/var/lib/netagent"


@pytest.fixture(scope="module")
def host(make_lab: MakeLab) -> Host:
    """One whose state lies on a small file system of its own, with a network that nothing is in yet."""
    (host,) = make_lab(1, agents=False).hosts
    host.run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", STATE)
    host.agent.start()
    netagent(host, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "net")
    return host


def test_a_number_that_a_foreign_tunnel_has_is_told_and_taken_when_it_is_free(host: Host) -> None:
    host.run("ip", "link", "add", "foreign", "type", "vxlan", "id", "4097", "dstport", "4789", "dev", "eth0")
    said = refusal(host, "run", "-d", "--name", "web", "--network", "net", "--", "sleep", "infinity", status=125)
    assert "VNI" in said
    assert "web" not in netagent(host, "ps", "-a").stdout
    host.run("ip", "link", "delete", "foreign")
    run(host, "web", "--network", "net")
    netagent(host, "rm", "-f", "web")


def test_a_full_disk_refuses_what_is_new_and_no_removal(host: Host) -> None:
    for name in ("stays", "goes", "ends"):
        run(host, name, "--network", "net")
    host.run("dd", "if=/dev/zero", f"of={STATE}/filler", "bs=4096", check=False)
    try:
        # What lies in the log of the journal already has room for a few.
        said = [refused(host, number) for number in range(3)]
        assert any("the journal cannot be written" in each and "free space" in each for each in said)
        netagent(host, "rm", "-f", "goes")
        netagent(host, "stop", "-t", "0", "ends")
        assert "goes" not in netagent(host, "ps", "-a").stdout
        assert "Exited" in netagent(host, "ps", "-a", "-f", "name=ends").stdout
        assert "the disk is full" in refused(host, 4)
        assert pings(host, "stays", "192.168.0.1")
        host.agent.restart()
        assert pings(host, "stays", "192.168.0.1")
    finally:
        host.run("rm", f"{STATE}/filler")
    run(host, "new", "--network", "net")
    assert pings(host, "new", address(host, "stays"))


def test_without_descriptors_to_spare_what_is_new_is_refused_and_the_rest_goes_on(host: Host) -> None:
    run(host, "before", "--network", "net")
    reached, agent = address(host, "before"), host.process("agent")
    assert agent is not None
    limit = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    for spare in (3, 1, 0):
        used = eventually(lambda: _lasting_descriptors(agent.pid))
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (used + spare, limit[1]))
        refusal(host, "run", "-d", "--name", f"no{spare}", "--network", "net", "--", "true", status=125)
    assert host.run("ping", "-n", "-c", "1", "-W", "2", reached, check=False).returncode == 0
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, limit)
    for spare in (3, 1, 0):
        netagent(host, "rm", "-f", f"no{spare}", check=False)
    run(host, "after", "--network", "net")
    assert pings(host, "after", reached)
    assert "no" not in netagent(host, "ps", "-a", "--format", "{{.Names}}").stdout
    netagent(host, "rm", "-f", "before", "after")


_HOLD = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as listener, open(sys.argv[2]) as namespace:
    listener.bind((sys.argv[1], 0))
    print("held", flush=True)
    sys.stdin.read()
"""
"""What keeps an interface, and a namespace's file, busy."""


def test_a_container_whose_port_and_namespace_others_hold_is_removed_all_the_same(host: Host) -> None:
    """A capture on its port, its namespace open, mounted in another mount namespace, and a process in it."""
    before = links(host)
    run(host, "held", "--network", "net")
    sandbox = inspect(host, "held")["NetworkSettings"]["SandboxKey"]
    (port,) = (link for link in links(host) - before if link.startswith("nae"))
    inhabitant = host.popen("nsenter", f"--net={sandbox}", "sleep", "infinity")
    hold = ("unshare", "--mount", sys.executable, "-c", _HOLD, port, sandbox)
    holder = host.popen(*hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        netagent(host, "rm", "-f", "held")
        eventually(lambda: port not in links(host))
        assert host.run("test", "-e", sandbox, check=False).returncode
        run(host, "held", "--network", "net")
        assert pings(host, "held", "192.168.0.1")
    finally:
        holder.communicate()
        inhabitant.kill()
        inhabitant.wait()
    assert pings(host, "held", "192.168.0.1")
    netagent(host, "rm", "-f", "held")


def links(host: Host) -> set[str]:
    return set(host.run("ls", "/sys/class/net").stdout.split())


_FILL = """
import itertools, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sender:
    flows = itertools.product(sys.argv[2:], range(1, 65536))
    for address, port in itertools.islice(flows, int(sys.argv[1])):
        sender.sendto(struct.pack("!HHHH", port, 9, 8, 0), (address, 0))
"""
"""One UDP packet for each connection."""


def test_a_table_of_connections_that_fills_is_told_until_it_has_room(host: Host) -> None:
    """The limit is the machine's and is not touched: each namespace fills a table of its own."""
    run(host, "before", "--network", "net")
    limit = int(host.run("sysctl", "-n", "net.netfilter.nf_conntrack_max").stdout)
    nobodies = [f"198.18.0.{last}" for last in range(220, 230)]
    if limit > len(nobodies) * 65535:
        pytest.skip(f"a table of {limit} is not filled in time")
    for nobody in nobodies:
        host.run("ip", "neighbour", "add", nobody, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    # This one is each namespace's own.
    host.run("sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=600")
    try:
        host.run(sys.executable, "-c", _FILL, str(limit * 82 // 100), *nobodies)
        eventually(lambda: "connections tracked" in netagent(host, "host", "ls").stdout)
        run(host, "meanwhile", "--network", "net")
        # What is spared when the table is full (early_drop_list, net/netfilter/nf_conntrack_core.c).
        assert "ASSURED" in host.run("conntrack", "-L", "-p", "tcp", "--dport", "2379").stdout
    finally:
        host.run("ip", "neighbour", "flush", "dev", "eth0", "nud", "permanent")
        host.run("conntrack", "-F")
    eventually(lambda: "connections tracked" not in netagent(host, "host", "ls").stdout)
    told = [line for line in netagent(host, "events").stdout.splitlines() if "host conntrack" in line]
    assert ["result=filling" in line for line in told] == [True, False]
    netagent(host, "rm", "-f", "before", "meanwhile")


def _lasting_descriptors(pid: int) -> int:
    """Return how many a process has, 0 if it is about to close or open some: what was answered is still let go of."""
    looks = []
    for _ in range(10):
        looks.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        time.sleep(0.02)
    return looks[0] if len(set(looks)) == 1 else 0


def refused(host: Host, number: int) -> str:
    """Return what is said when one more container is started; empty if it is, and it is removed again."""
    name = f"more{number}"
    done = netagent(host, "run", "-d", "--name", name, "--network", "net", "--", "sleep", "infinity", check=False)
    if done.returncode:
        assert name not in netagent(host, "ps", "-a").stdout
    return done.stderr


def test_a_log_that_nobody_reads_holds_nobody_up(host: Host) -> None:
    """The pipe is full before the agent starts: its first line waits for ever."""
    host.agent.stop()
    options = f"--host-name h1 --host-ip {host.ip} --log-level debug"
    script = f"mkfifo /run/log; exec 3<>/run/log; head -c 65536 /dev/zero >&3; exec netagent agent {options} 2>&3"
    host.spawn("agent", ["sh", "-ec", script])
    host.agent.wait_ready()
    run(host, "unheard")
    netagent(host, "rm", "-f", "unheard")
    host.agent.stop()
    host.agent.start()
