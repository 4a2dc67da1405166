"""What a container with raw sockets cannot do to its neighbours: pretend to be another one, the gateway or a router."""

import json
import re
import subprocess
import sys

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, inspect, netagent, pings, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

HONEST = {"arp", "arp-probe", "ipv4", "ipv6", "dad", "neighbour-advert", "claim-extension", "ask"}

_ATTACK = """
import json, sys
from scapy.all import ARP, BOOTP, DHCP, Dot1Q, Ether, ICMP, IP, IPv6, Raw, UDP, conf, get_if_hwaddr
from scapy.layers.inet6 import (ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_Redirect, ICMPv6NDOptDstLLAddr,
                                ICMPv6NDOptPrefixInfo, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrRouting)
me, me6, you, you6, your_mac, gateway, gateway6 = json.loads(sys.argv[1])
mine = get_if_hwaddr("eth0")
stranger = "02:aa:bb:cc:dd:ee"
here = Ether(src=mine, dst=your_mac)
all_ = Ether(src=mine, dst="ff:ff:ff:ff:ff:ff")
nodes = Ether(src=mine, dst="33:33:00:00:00:01")
many = IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()
own_ll = ICMPv6NDOptDstLLAddr(lladdr=mine)
frames = {
    "arp": all_ / ARP(op=1, hwsrc=mine, psrc=me, pdst=you),
    "arp-probe": all_ / ARP(op=1, hwsrc=mine, psrc="0.0.0.0", pdst=me),
    "ipv4": here / IP(src=me, dst=you) / UDP(sport=1, dport=9),
    "ipv6": here / IPv6(src=me6, dst=you6) / UDP(sport=1, dport=9),
    "dad": nodes / IPv6(src="::", dst="ff02::1") / ICMPv6ND_NS(tgt=me6),
    "claim-extension": here / IPv6(src=me6, dst=you6) / IPv6ExtHdrDestOpt() / ICMPv6ND_NA(tgt=me6, O=1) / own_ll,
    "ask": nodes / IPv6(src=me6, dst="ff02::1") / ICMPv6ND_NS(tgt=you6),
    "neighbour-advert": nodes / IPv6(src=me6, dst="ff02::1") / ICMPv6ND_NA(tgt=me6, O=1, R=0) / own_ll,
    "x-mac": Ether(src=stranger, dst=your_mac) / IP(src=me, dst=you) / UDP(sport=1, dport=9),
    "x-ipv4": here / IP(src=gateway, dst=you) / UDP(sport=1, dport=9),
    "x-ipv4-stranger": here / IP(src="8.8.8.8", dst=you) / UDP(sport=1, dport=9),
    "x-ipv4-multicast": here / IP(src="224.0.0.1", dst=you) / UDP(sport=1, dport=9),
    "x-ipv4-none": here / IP(src="0.0.0.0", dst=you) / UDP(sport=1, dport=9),
    "x-ipv6": here / IPv6(src=gateway6, dst=you6) / UDP(sport=1, dport=9),
    "x-ipv6-link-local": here / IPv6(src="fe80::1", dst=you6) / UDP(sport=1, dport=9),
    "x-arp-gateway": all_ / ARP(op=2, hwsrc=mine, psrc=gateway, hwdst=your_mac, pdst=you),
    "x-arp-request-gateway": all_ / ARP(op=1, hwsrc=mine, psrc=gateway, pdst=gateway),
    "x-arp-neighbour": all_ / ARP(op=2, hwsrc=mine, psrc=you, hwdst=your_mac, pdst=you),
    "x-arp-mac": all_ / ARP(op=2, hwsrc=stranger, psrc=me, hwdst=your_mac, pdst=you),
    "x-arp-odd-type": all_ / ARP(hwtype=6, op=2, hwsrc=mine, psrc=gateway, hwdst=your_mac, pdst=you),
    "x-arp-null-reply": all_ / ARP(op=2, hwsrc=mine, psrc="0.0.0.0", hwdst=your_mac, pdst=you),
    "x-na-gateway": nodes / IPv6(src=me6, dst="ff02::1") / ICMPv6ND_NA(tgt=gateway6, O=1, R=1) / own_ll,
    "x-na-extension": here / IPv6(src=me6, dst=you6) / IPv6ExtHdrDestOpt() / ICMPv6ND_NA(tgt=gateway6, O=1) / own_ll,
    "x-na-fragment": here / IPv6(src=me6, dst=you6) / IPv6ExtHdrFragment(m=1) / ICMPv6ND_NA(tgt=gateway6, O=1) / own_ll,
    "x-na-many": here / IPv6(src=me6, dst=you6) / many / ICMPv6ND_NA(tgt=gateway6, O=1) / own_ll,
    "x-dad-neighbour": nodes / IPv6(src="::", dst="ff02::1") / ICMPv6ND_NS(tgt=you6),
    "x-ra": nodes / IPv6(src=me6, dst="ff02::1", hlim=255) / ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="fd66::"),
    "x-redirect": here / IPv6(src=me6, dst=you6) / ICMPv6ND_Redirect(tgt=me6, dst="fd66::1"),
    "x-redirect4": here / IP(src=me, dst=you) / ICMP(type=5, code=1, gw=me) / IP(src=you, dst="8.8.8.8") / UDP(),
    "x-dhcp": all_ / IP(src=me, dst="255.255.255.255") / UDP(sport=67, dport=68) / BOOTP(op=2) / DHCP(options=["end"]),
    "x-dhcp6": nodes / IPv6(src=me6, dst="ff02::1") / UDP(sport=547, dport=546),
    "x-vlan": here / Dot1Q(vlan=5) / Dot1Q(vlan=6) / IP(src=gateway, dst=you) / UDP(sport=1, dport=9),
    "x-lldp": Ether(src=mine, dst=your_mac, type=0x88CC),
}
out = conf.L2socket(iface="eth0")
for name, frame in frames.items():
    out.send(frame / Raw(f"<{name}>".encode()))
out.send(frames["ipv4"] / Raw(b"<end>"))
"""
"""Sends one frame of each kind, its name at the end; those that must not arrive begin with x."""

_WITNESS = """
import json, re, socket, sys, time
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
heard.settimeout(60)
print("ready", flush=True)
names, wanted, until = set(), {*sys.argv[1:], "end"}, time.monotonic() + 60
while not names >= wanted and time.monotonic() < until:
    names |= {name.decode() for name in re.findall(rb"<([a-z0-9-]+)>", heard.recv(65536))}
print(json.dumps(sorted(names - {"end"})))
"""


@pytest.fixture(scope="module")
def host(make_lab: MakeLab, firewall: str) -> Host:
    lab: Lab = make_lab(hosts=1, firewall=firewall)
    host = lab.hosts[0]
    netagent(host, "network", "create", "--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "shared")
    run(host, "attacker", "--network", "shared")
    run(host, "neighbour", "--network", "shared")
    return host


@pytest.fixture(params=["0", "1"], ids=["bridge-filter-off", "bridge-filter-on"], autouse=True)
def bridge_filter(host: Host, request: pytest.FixtureRequest) -> None:
    for name in ("iptables", "ip6tables", "arptables"):
        host.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{name}={request.param}")


def test_forged_frames_do_not_reach_a_neighbour_and_honest_ones_do(host: Host, firewall: str) -> None:
    there = inspect(host, "neighbour")["NetworkSettings"]
    parties = [
        *(address(host, "attacker", version) for version in (4, 6)),
        *(address(host, "neighbour", version) for version in (4, 6)),
        there["Networks"]["shared"]["MacAddress"],
        "10.77.0.1",
        "fd77::1",
    ]
    dropped = _dropped(host, firewall)
    # What is sent last may be the first to arrive where the machine is busy.
    witness = host.popen(
        "netagent", "exec", "neighbour", "--", sys.executable, "-c", _WITNESS, *HONEST, stdout=subprocess.PIPE
    )
    try:
        assert witness.stdout is not None
        assert witness.stdout.readline() == "ready\n"
        attack = inside(host, "attacker", sys.executable, "-c", _ATTACK, json.dumps(parties))
        assert attack.returncode == 0, attack.stderr
        seen = set(json.loads(witness.stdout.readline()))
    finally:
        witness.kill()
        witness.communicate()
    assert seen == HONEST
    eventually(lambda: _dropped(host, firewall) >= dropped + _ATTACK.count('\n    "x-'))


def test_honest_containers_reach_each_other_and_the_gateway(host: Host) -> None:
    for target in ("10.77.0.1", "fd77::1", address(host, "neighbour"), address(host, "neighbour", 6)):
        assert pings(host, "attacker", target), target
    assert "tentative" not in inside(host, "attacker", "ip", "-6", "address", "show", "dev", "eth0").stdout
    link_local = inside(host, "neighbour", "ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link").stdout
    assert pings(host, "attacker", f"{link_local.split()[3].partition('/')[0]}%eth0")


def _dropped(host: Host, firewall: str) -> int:
    """Return how many frames the host refused so far."""
    if firewall == "iptables":
        listing = host.run("ebtables-nft", "-t", "nat", "-L", "NETAGENT-REFUSE", "--Lc").stdout
        (count,) = re.findall(r"-j DROP , pcnt = (\d+)", listing)
        # What ebtables cannot see a program at the port has refused.
        queues = host.run("tc", "-s", "qdisc", "show").stdout
        return int(count) + sum(map(int, re.findall(r"qdisc ingress [^(]*\(dropped (\d+)", queues)))
    listing = json.loads(host.run("nft", "-j", "list", "chain", "bridge", "netagent", "refuse").stdout)
    (rule,) = (entry["rule"] for entry in listing["nftables"] if "rule" in entry)
    packets: int = rule["expr"][0]["counter"]["packets"]
    return packets
