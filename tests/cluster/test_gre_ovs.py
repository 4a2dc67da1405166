"""GRE by Open vSwitch's userspace datapath, for a kernel that has none: what containers and the wire see of it."""

import sys

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import GRE, Ether

from netagent.lab import process
from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.docker import dockers
from tests.support.hosts import address, inside, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually
from tests.support.paths import (
    SPOILED,
    SWITCHED_OFF,
    ask_again,
    losing,
    path_results,
    problems,
    receives,
    route_mtus,
    serve_bytes,
)
from tests.support.wire import captured

pytestmark = pytest.mark.cluster

MTU = {"net": 1458, "six": 1438}
VERSIONS = {"net": (4, 6), "six": (4,)}
BYTES = 4 << 20

_FORGE = """
import sys
from scapy.all import GRE, IP, UDP, Ether, Raw, sendp
outer_mac, source, target, key, inner_mac, inner_source, inner_target = sys.argv[1:]
inner = Ether(src="02:00:00:00:00:01", dst=inner_mac) / IP(src=inner_source, dst=inner_target)
sendp(Ether(dst=outer_mac) / IP(src=source, dst=target) / GRE(proto=0x6558, key_present=1, key=int(key))
      / inner / UDP(sport=7, dport=9999) / Raw(b"forged"), iface="eth0", verbose=False)
"""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=3, underlay="ovs")
    h1, h2, _ = lab.hosts
    create = ("network", "create", "--driver", "gre")
    netagent(h1, *create, "--subnet", "192.168.0.0/16", "--subnet", "fd00:77::/64", "net")
    netagent(h1, *create, "--opt", "underlay=ipv6", "--subnet", "10.66.0.0/16", "six")
    eventually(lambda: "six" in netagent(h2, "network", "ls").stdout)
    for network in MTU:
        run(h1, f"{network}1", "--network", network)
        run(h2, f"{network}2", "--network", network)
    return lab


def key_of(host: Host, network: str) -> int:
    """Return the key of a network's tunnel, as Open vSwitch on that host has it."""
    number = netagent(host, "network", "inspect", "--format", "{{.Id}}", network).stdout.strip()[:12]
    return int(host.run("ovs-vsctl", "get", "interface", f"nag{number}", "options:key").stdout.strip().strip('"'))


@pytest.mark.parametrize(("network", "version"), [(n, v) for n, versions in VERSIONS.items() for v in versions])
def test_containers_of_two_hosts_reach_each_other(lab: Lab, network: str, version: int) -> None:
    h1, h2, _ = lab.hosts
    there, back = address(h2, f"{network}2", version), address(h1, f"{network}1", version)
    eventually(lambda: pings(h1, f"{network}1", there))
    assert pings(h1, f"{network}1", there, count=3)
    assert pings(h2, f"{network}2", back, count=3)
    assert h2.run("ping", "-n", "-c", "1", "-W", "2", back, check=False).returncode == 0


def test_full_sized_packets_pass(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    for network, mtu in MTU.items():
        assert inside(h1, f"{network}1", "cat", "/sys/class/net/eth0/mtu").stdout.strip() == str(mtu)
        there = address(h2, f"{network}2")
        eventually(lambda there=there, network=network: pings(h1, f"{network}1", there))
        assert pings(h1, f"{network}1", there, options=("-M", "do", "-s", str(mtu - 28)))


@pytest.mark.parametrize(("network", "version"), [(n, v) for n, versions in VERSIONS.items() for v in versions])
def test_every_frame_has_the_key_the_hosts_outside_and_the_containers_inside(
    lab: Lab, network: str, version: int
) -> None:
    h1, h2, _ = lab.hosts
    there, here = address(h2, f"{network}2", version), address(h1, f"{network}1", version)
    eventually(lambda: pings(h1, f"{network}1", there))
    with captured(h1, "proto gre or ip6 proto gre or icmp or icmp6[icmp6type] == 128") as frames:
        assert pings(h1, f"{network}1", there, count=3)
    tunnelled = [
        f for f in frames if GRE in f and any(echo in f for echo in (ICMP, ICMPv6EchoRequest, ICMPv6EchoReply))
    ]
    assert len(tunnelled) == len([f for f in frames if GRE not in f or f in tunnelled]) == 6
    outer = IPv6 if network == "six" else IP
    ends = {str(h.seat.ipv6 if network == "six" else h.seat.ipv4) for h in (h1, h2)}
    assert {f[outer].src for f in tunnelled} == {f[outer].dst for f in tunnelled} == ends
    assert {(f[GRE].proto, f[GRE].key) for f in tunnelled} == {(0x6558, key_of(h1, network))}
    layer = IP if version == 4 else IPv6
    assert {f[GRE][Ether][layer].src for f in tunnelled} == {here, there}


def test_a_switch_between_hosts_that_loses_large_packets_is_told_and_routes_keep_them_smaller(lab: Lab) -> None:
    """Both kinds of underlay, and both families inside; containers' packets of any size arrive meanwhile."""
    h1, h2, _ = lab.hosts
    for network in MTU:
        serve_bytes(h2, f"{network}s", BYTES, "--network", network)
    with losing(lab, "ip protocol gre ip length > 1400", "ip6 nexthdr gre ip6 length > 1360"):
        ask_again(h1)
        found = {"net: loses packets of 1458 bytes, carries 1358", "six: loses packets of 1438 bytes, carries 1338"}
        for host in (h1, h2):
            eventually(lambda host=host: problems(host) == found)
        assert all(problem in netagent(h1, "host", "ls").stdout for problem in found)
        eventually(lambda: {mtu for prefix, mtu in route_mtus(h1).items() if "/" in prefix} == {"1358", "1338"})
        assert len([mtu for mtu in route_mtus(h1).values() if mtu == "1358"]) == len(VERSIONS["net"])
        for network, version in ((n, v) for n, versions in VERSIONS.items() for v in versions):
            target = address(h2, f"{network}s", version)
            eventually(lambda network=network, target=target: receives(h1, f"{network}1", target, BYTES))
        told = inside(h1, "net1", "ping", "-n", "-c1", "-W2", "-M", "do", "-s", "1400", address(h2, "nets", 4)).stdout
        assert "mtu = 1358" in told or "mtu=1358" in told
    ask_again(h1)
    for host in (h1, h2):
        eventually(lambda host=host: not problems(host))
    eventually(lambda: set(route_mtus(h1).values()) == {None})
    assert [path_results(h1, network)[-1] for network in MTU] == ["answers"] * 2


def leaves_checksums(host: Host) -> dict[str, bool]:
    """Tell which devices of the switch take packets with checksums still to be worked out: its own, or our tunnels."""
    names = [name for line in host.run("ip", "-br", "link").stdout.splitlines() for name in line.split()[:1]]
    offers = {n: "tx-checksumming: on" in host.run("ethtool", "-k", n).stdout for n in names if n.startswith("nao")}
    assert len(offers) == len(MTU)
    return {
        "br-phy": "tx-checksumming: on" in host.run("ethtool", "-k", "br-phy").stdout,
        "tunnels": any(offers.values()),
    }


def test_forged_packets_arrive_only_from_a_peer_with_its_key_and_its_sources(lab: Lab) -> None:
    h1, h2, stranger = lab.hosts
    eventually(lambda: pings(h1, "net1", address(h2, "net2")))
    key, source = key_of(h1, "net"), address(h2, "net2")
    assert _arrives(h1, h2, key, source, within=20)
    assert not _arrives(h1, stranger, key, source)
    assert not _arrives(h1, h2, key_of(h1, "six"), source)
    assert not _arrives(h1, h2, key, "8.8.8.8")
    assert not _arrives(h1, h2, key, "192.168.77.1")


def test_a_peer_may_use_no_address_that_lies_behind_another(lab: Lab) -> None:
    h1, h2, h3 = lab.hosts
    run(h3, "net3", "--network", "net")
    key, source = key_of(h1, "net"), address(h3, "net3")
    eventually(lambda: pings(h1, "net1", source))
    assert _arrives(h1, h3, key, source, within=20)
    assert not _arrives(h1, h2, key, source)
    assert not _arrives(h1, h3, key, address(h2, "net2"))


def test_checksums_that_the_switch_does_not_work_out_in_tunnels_are_left_to_it_no_more(lab: Lab) -> None:
    """With ``userspace-tso-enable`` the datapath takes them from devices and drops such packets at tunnels."""
    h1, h2, _ = lab.hosts
    assert leaves_checksums(h1) == {"br-phy": False, "tunnels": False}, "nothing is left to the switch otherwise"
    start_switch_anew(h1, segments=True)
    ask_again(h1)
    eventually(lambda: problems(h1) == {f"{network}: {SWITCHED_OFF}" for network in MTU}, within=120)
    assert leaves_checksums(h1) == {"br-phy": True, "tunnels": False}
    for network, version in ((n, v) for n, versions in VERSIONS.items() for v in versions):
        target = address(h2, f"{network}s", version)
        eventually(lambda network=network, target=target: receives(h1, f"{network}1", target, BYTES))
    for network in MTU:
        assert SPOILED in path_results(h1, network)
        assert path_results(h1, network)[-1] == "answers"
    assert problems(h2) == set()


def test_a_switch_that_is_started_anew_gets_its_tunnels_back(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    start_switch_anew(h1)
    eventually(lambda: pings(h1, "net1", address(h2, "net2")))


def start_switch_anew(host: Host, *, segments: bool = False) -> None:
    """Restart Open vSwitch on a host as it was, or with ``segments`` taking checksums and segmentation upon itself."""
    running = host.process("vswitchd")
    assert running is not None
    process.end([running], within_s=5)
    # Its devices outlive it (TUNSETPERSIST), and what they offer with them.
    host.run("ip", "link", "del", "br-phy")
    host.run(
        *("ovs-vsctl", "--no-wait", "set", "Open_vSwitch", ".", f"other_config:userspace-tso-enable={segments}".lower())
    )
    host.spawn("vswitchd", ["ovs-vswitchd", "-vconsole:warn", "-vfile:off", "unix:/run/openvswitch/db.sock"])
    eventually(lambda: "br-phy" in host.run("ip", "-br", "link").stdout)
    host.run("ip", "link", "set", "br-phy", "up")
    host.run("ip", "address", "replace", f"{host.seat.ipv4}/24", "dev", "br-phy")
    host.run("ip", "address", "replace", f"{host.seat.ipv6}/64", "dev", "br-phy", "nodad")


def test_a_network_goes_and_leaves_nothing_in_the_switch(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    netagent(h1, "network", "create", "--driver", "gre", "--subnet", "10.77.0.0/16", "brief")
    eventually(lambda: "brief" in netagent(h2, "network", "ls").stdout)
    before = [host.run("ovs-vsctl", "list-br").stdout for host in (h1, h2)]
    run(h1, "brief", "--network", "brief")
    run(h2, "brief", "--network", "brief")
    assert h1.run("ovs-vsctl", "list-br").stdout != before[0]
    for host in (h1, h2):
        netagent(host, "rm", "-f", "brief")
    eventually(lambda: netagent(h1, "network", "rm", "brief", check=False).returncode == 0)
    eventually(lambda: [host.run("ovs-vsctl", "list-br").stdout for host in (h1, h2)] == before)


def test_an_unknown_backend_and_a_driver_that_has_none_are_refused(lab: Lab) -> None:
    h1 = lab.hosts[0]
    create = ("network", "create", "--opt", "backend=bsd", "--subnet", "10.78.0.0/16", "--driver")
    assert "invalid value for option backend: 'bsd' (kernel or ovs)" in refusal(h1, *create, "gre", "x")
    assert "option backend does not work with the driver vxlan" in refusal(h1, *create, "vxlan", "x")


def test_containers_of_docker_reach_each_other_by_gre(lab: Lab) -> None:
    """``-o driver=gre``, through the real command, on hosts whose agents did not serve Docker before."""
    hosts = lab.hosts[:2]
    for host in hosts:
        with host.path("/etc/netagent/agent.toml").open("a") as configuration:
            configuration.write("docker = true\n")
        host.agent.restart()
    with dockers(*hosts) as daemons:
        for daemon in daemons:
            daemon.create_network("tunnel", "--subnet", "10.79.0.0/16", "-o", "driver=gre")
            daemon.run("end", "--network", "tunnel")
        one, two = daemons
        eventually(lambda: one.pings("end", two.address("end", "tunnel")))
        with captured(hosts[0], "proto gre") as frames:
            eventually(lambda: two.pings("end", one.address("end", "tunnel")))
        assert len([f for f in frames if GRE in f and ICMP in f]) >= 2
        for daemon in daemons:
            daemon.remove_all()


def test_no_pass_fails(lab: Lab) -> None:
    for host in lab.hosts:
        eventually(lambda host=host: "Kernel: as it should be" in netagent(host, "info").stdout)


def _arrives(host: Host, sender: Host, key: int, inner_source: str, *, within: float = 1) -> bool:
    """Tell whether the container ``net1`` receives a forged packet that ``sender`` puts on the wire."""
    tunnel = next(line for line in host.run("ip", "-br", "link").stdout.splitlines() if line.startswith("nao"))
    before = _received(host)
    ends = (host.seat.mac, str(sender.ip), str(host.ip), str(key))
    sender.run(sys.executable, "-c", _FORGE, *ends, tunnel.split()[2], inner_source, address(host, "net1"))
    try:
        return eventually(lambda: _received(host) > before, within=within)
    except AssertionError:
        return False


def _received(host: Host) -> int:
    """Return how many datagrams for a port without a listener the container has received."""
    counters = inside(host, "net1", "grep", "^Udp:", "/proc/net/snmp").stdout.splitlines()
    return int(counters[1].split()[2])
