"""Plain routes between hosts of one segment, and what is done about a host behind a router."""

import sys

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.lab.underlay import complete_checksums
from tests.support.hosts import address, inside, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually
from tests.support.paths import (
    SPOILED,
    ask_again,
    losing,
    path_results,
    problems,
    receives,
    route_mtus,
    serve_bytes,
)
from tests.support.spoiling import spoiling
from tests.support.wire import captured

pytestmark = pytest.mark.cluster

BYTES = 4 << 20

_SEND = """
import sys
from scapy.all import IP, UDP, Ether, Raw, sendp
interface, mac, source, target = sys.argv[1:]
sendp(Ether(dst=mac) / IP(src=source, dst=target) / UDP(sport=7, dport=9999) / Raw(b"forged"), iface=interface,
      verbose=False)
"""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=3, agents=False)
    h1, h2, h3 = lab.hosts
    _move_behind_router(lab, h3)
    for host in lab.hosts:
        host.agent.start()
    subnets = ("--subnet", "192.168.0.0/16", "--subnet", "fd00:77::/64")
    netagent(h1, "network", "create", "--driver", "route", *subnets, "plain")
    netagent(h1, "network", "create", "--driver", "route", "--subnet", "10.66.0.0/16", "other")
    mixed = ("--driver", "route", "--opt", "fallback=vxlan", "--subnet", "10.77.0.0/16")
    netagent(h1, "network", "create", *mixed, "mixed")
    direct = ("--driver", "vxlan", "--opt", "direct-routing=true", "--subnet", "10.88.0.0/16", "--ipv6")
    netagent(h1, "network", "create", *direct, "direct")
    eventually(lambda: all("direct" in netagent(host, "network", "ls").stdout for host in lab.hosts))
    for number, host in enumerate((h1, h2), 1):
        run(host, f"p{number}", "--network", "plain")
        run(host, f"o{number}", "--network", "other")
    for number, host in enumerate(lab.hosts, 1):
        run(host, f"m{number}", "--network", "mixed")
        run(host, f"d{number}", "--network", "direct")
    eventually(lambda: pings(h1, "p1", address(h2, "p2")))
    return lab


def _move_behind_router(lab: Lab, host: Host) -> None:
    """Let a host reach the others only by the machine of etcd and by IPv4, and the others know that."""
    router = lab.etcd[0]
    router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
    router.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects")
    router.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/eth0/send_redirects")
    host.run("ip", "address", "del", f"{host.ip}/24", "dev", "eth0")
    # Nor by IPv6: IPv4 blocks would go by that.
    host.run("ip", "address", "del", f"{host.seat.ipv6}/64", "dev", "eth0")
    host.run("ip", "address", "add", f"{host.ip}/32", "dev", "eth0")
    host.run("ip", "route", "add", f"{router.ip}/32", "dev", "eth0", "src", str(host.ip))
    host.run("ip", "route", "add", "198.18.0.0/24", "via", str(router.ip), "src", str(host.ip))


@pytest.mark.parametrize("version", [4, 6])
def test_containers_reach_each_other_in_both_directions_with_their_own_addresses(lab: Lab, version: int) -> None:
    h1, h2, _ = lab.hosts
    one, two = address(h1, "p1", version), address(h2, "p2", version)
    eventually(lambda: pings(h1, "p1", two))
    with captured(h1, "icmp or icmp6") as frames:
        assert pings(h1, "p1", two, count=3)
        assert pings(h2, "p2", one, count=3)
    layer = IP if version == 4 else IPv6
    echoes = [f for f in frames if ICMP in f or ICMPv6EchoRequest in f or ICMPv6EchoReply in f]
    assert len(echoes) == 12
    assert {frozenset((f[layer].src, f[layer].dst)) for f in echoes} == {frozenset((one, two))}


def test_the_containers_have_the_underlays_whole_mtu(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    assert inside(h1, "p1", "cat", "/sys/class/net/eth0/mtu").stdout.strip() == "1500"
    assert pings(h1, "p1", address(h2, "p2"), options=("-M", "do", "-s", "1472"))


def test_a_host_is_one_route_by_its_underlay_address(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    block = address(h2, "p2").rpartition(".")[0]
    route = h1.run("ip", "route", "show", f"{block}.0/24").stdout
    assert f"{block}.0/24 via {h2.ip} dev eth0 proto 110 src 192.168." in route


def test_a_host_reaches_containers_of_the_other(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    for version in (4, 6):
        assert h1.run("ping", "-n", "-c", "1", "-W", "2", address(h2, "p2", version), check=False).returncode == 0


def test_a_fixed_address_is_reached_from_the_other_host(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    run(h2, "fixed", "--network", "plain", "--ip", "192.168.0.9")
    eventually(lambda: pings(h1, "p1", "192.168.0.9"))


def test_a_host_behind_a_router_is_refused_by_name(lab: Lab) -> None:
    words = refusal(lab.hosts[2], "run", "-d", "--network", "plain", "--", "sleep", "1", status=125)
    assert "network plain: hosts h3 and h" in words
    assert "are not on one segment" in words
    assert "fallback=vxlan" in words


@pytest.mark.parametrize("letter", ["m", "d"], ids=["fallback", "direct-routing"])
def test_where_both_ways_exist_only_the_host_behind_the_router_is_reached_by_the_tunnel(lab: Lab, letter: str) -> None:
    h1, h2, h3 = lab.hosts
    near, far = address(h2, f"{letter}2"), address(h3, f"{letter}3")
    for target in (near, far):
        eventually(lambda target=target: pings(h1, f"{letter}1", target))
    eventually(lambda: pings(h3, f"{letter}3", near))
    with captured(h1, "icmp or udp port 4789") as frames:
        assert pings(h1, f"{letter}1", near, count=2)
        assert pings(h1, f"{letter}1", far, count=2)
    plain = [f for f in frames if UDP not in f]
    tunnelled = [f for f in frames if UDP in f]
    assert {f[IP].dst for f in plain} == {near, address(h1, f"{letter}1")}
    assert {f[IP].dst for f in tunnelled} == {str(h3.ip), str(h1.ip)}
    assert inside(h1, f"{letter}1", "cat", "/sys/class/net/eth0/mtu").stdout.strip() == "1450"


def test_containers_of_two_networks_do_not_reach_each_other_across_hosts(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    eventually(lambda: pings(h1, "o1", address(h2, "o2")))
    assert not pings(h1, "p1", address(h2, "o2"))
    assert not pings(h1, "d1", address(h2, "p2"))


def test_a_peers_packet_is_taken_only_into_the_network_that_its_source_belongs_to(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    assert _arrives(h1, "p1", h2, address(h2, "p2"), within=30)
    assert not _arrives(h1, "p1", h2, address(h2, "o2"))
    assert not _arrives(h1, "p1", h2, "8.8.8.8")
    assert not _arrives(h1, "p1", h2, "192.168.77.1")


def test_a_peers_source_from_another_interface_is_refused(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    h1.run("ip", "link", "add", "side0", "type", "veth", "peer", "name", "side1")
    try:
        h1.run("ip", "link", "set", "side0", "up")
        h1.run("ip", "link", "set", "side1", "up")
        mac = h1.run("cat", "/sys/class/net/side0/address").stdout.strip()
        assert not _arrives(h1, "p1", h1, address(h2, "p2"), interface="side1", mac=mac)
    finally:
        h1.run("ip", "link", "del", "side0")


def test_a_path_that_loses_large_packets_and_spoils_checksums_is_told_and_routes_keep_them_smaller(lab: Lab) -> None:
    """Both at once. The interface is not netagent's: its offload is told of, and left alone."""
    h1, h2, _ = lab.hosts
    for host in (h1, h2):
        # What crosses the switch is what would cross a wire.
        host.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
    serve_bytes(h2, "bytes", BYTES, "--network", "plain")
    run(h2, "placed", "--network", "plain", "--ip", "192.168.0.10")
    one, two = (address(host, name).rpartition(".")[0] + ".0" for host, name in ((h1, "p1"), (h2, "p2")))
    # Programs leave checksums to an interface that offers it, so the one that works them out is the next.
    complete_checksums(lab.layout.switch, h2.name)
    h1.run("nft", spoiling("eth0", f"ip saddr {one} ip protocol udp", "@th,48,16", protocol=17, source=one, target=two))
    lossy = "plain: loses packets of 1500 bytes, carries 1400"
    with losing(lab, "ip saddr 192.168.0.0/16 ip length > 1400", "ip6 saddr fd00:77::/64 ip6 length > 1360"):
        ask_again(h1)
        eventually(lambda: problems(h1) == {lossy, f"{lossy}, {SPOILED}"}, within=90)
        eventually(lambda: problems(h2) == {lossy})
        assert f"{lossy}, {SPOILED}" in netagent(h1, "host", "ls").stdout
        eventually(lambda: {f"{two}/24", "192.168.0.10"} < route_mtus(h1).keys() - whole(h1))
        six = [prefix for prefix in route_mtus(h1).keys() - whole(h1) if ":" in prefix]
        assert len(six) == 1
        assert {mtu for mtu in route_mtus(h1).values() if mtu} == {"1400"}
        for version in (4, 6):
            target = address(h2, "bytes", version)
            eventually(lambda target=target: receives(h1, "p1", target, BYTES))
        assert pings(h1, "o1", address(h2, "o2"), options=("-M", "do", "-s", "1472")), "another network's way is whole"
    h1.run("nft", "delete table netdev sums")
    ask_again(h1)
    for host in (h1, h2):
        eventually(lambda host=host: not problems(host))
    eventually(lambda: set(route_mtus(h1).values()) == {None})
    assert path_results(h1, "plain")[-1] == "answers"


def test_no_pass_fails(lab: Lab) -> None:
    for host in lab.hosts:
        eventually(lambda host=host: "Kernel: as it should be" in netagent(host, "info").stdout)


def whole(host: Host) -> set[str]:
    """Return the prefixes to which routes say nothing of how large packets may be."""
    return {prefix for prefix, mtu in route_mtus(host).items() if not mtu}


def _arrives(
    host: Host, name: str, sender: Host, source: str, *, interface: str = "eth0", mac: str = "", within: float = 1
) -> bool:
    """Tell whether a container receives a datagram with ``source`` that ``sender`` puts on its wire."""
    before = _received(host, name)
    sender.run(sys.executable, "-c", _SEND, interface, mac or host.seat.mac, source, address(host, name))
    try:
        return eventually(lambda: _received(host, name) > before, within=within)
    except AssertionError:
        return False


def _received(host: Host, name: str) -> int:
    """Return how many datagrams for a port without a listener the container has received."""
    counters = inside(host, name, "grep", "^Udp:", "/proc/net/snmp").stdout.splitlines()
    return int(counters[1].split()[2])
