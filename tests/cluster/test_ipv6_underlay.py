"""Hosts that have only IPv6 between them: both families inside, through VXLAN and by plain routes."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually
from tests.support.wire import captured

pytestmark = pytest.mark.cluster

SUBNETS = {
    "tunnel": ("--subnet", "192.168.0.0/16", "--subnet", "fd00:77::/64"),
    "plain": ("--subnet", "10.66.0.0/16", "--subnet", "fd00:66::/64"),
}
DRIVERS = {"tunnel": "vxlan", "plain": "route"}


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2, underlay="ipv6")
    h1, h2 = lab.hosts
    for network, subnets in SUBNETS.items():
        netagent(h1, "network", "create", "--driver", DRIVERS[network], *subnets, network)
    eventually(lambda: "plain" in netagent(h2, "network", "ls").stdout)
    for network in SUBNETS:
        run(h1, f"{network}1", "--network", network)
        run(h2, f"{network}2", "--network", network)
    return lab


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("network", SUBNETS)
def test_containers_of_two_hosts_reach_each_other(lab: Lab, network: str, version: int) -> None:
    h1, h2 = lab.hosts
    there, back = address(h2, f"{network}2", version), address(h1, f"{network}1", version)
    eventually(lambda: pings(h1, f"{network}1", there))
    assert pings(h1, f"{network}1", there, count=3)
    assert pings(h2, f"{network}2", back, count=3)
    assert h2.run("ping", "-n", "-c", "1", "-W", "2", back, check=False).returncode == 0


def test_the_tunnel_takes_70_bytes_and_plain_routes_none(lab: Lab) -> None:
    h1, h2 = lab.hosts
    for network, mtu in (("tunnel", 1430), ("plain", 1500)):
        assert inside(h1, f"{network}1", "cat", "/sys/class/net/eth0/mtu").stdout.strip() == str(mtu)
        there = address(h2, f"{network}2")
        assert pings(h1, f"{network}1", there, options=("-M", "do", "-s", str(mtu - 28)))


def test_every_frame_of_the_tunnel_has_the_hosts_outside_and_the_containers_inside(lab: Lab) -> None:
    h1, h2 = lab.hosts
    number = h1.run("sh", "-c", "ip -d link | grep -o 'vxlan id [0-9]*'").stdout.split()[-1]
    there = address(h2, "tunnel2")
    with captured(h1, "ip or udp port 4789") as frames:
        assert pings(h1, "tunnel1", there, count=3)
    tunnelled = [f for f in frames if UDP in f and f[UDP].dport == 4789]
    assert len(tunnelled) == len(frames) == 6
    assert {f[IPv6].src for f in tunnelled} == {str(h1.ip), str(h2.ip)}
    assert {f[VXLAN].vni for f in tunnelled} == {int(number)}
    inner = [f[VXLAN][Ether] for f in tunnelled]
    assert {f[IP].src for f in inner} == {there, address(h1, "tunnel1")}


def test_a_network_of_an_ipv4_underlay_is_refused_here_by_name(lab: Lab) -> None:
    h1 = lab.hosts[0]
    netagent(h1, "network", "create", "--driver", "vxlan", "--opt", "underlay=ipv4", "--subnet", "10.9.0.0/16", "four")
    words = refusal(h1, "run", "-d", "--network", "four", "--", "sleep", "1", status=125)
    assert "network four needs an address of this host that other hosts can reach by IPv4" in words
    netagent(h1, "network", "rm", "four")


def test_no_pass_fails(lab: Lab) -> None:
    for host in lab.hosts:
        eventually(lambda host=host: "Kernel: as it should be" in netagent(host, "info").stdout)
