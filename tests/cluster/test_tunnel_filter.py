"""VXLAN packets from a machine that is no peer, and packets from a peer that no container of its can have sent."""

import sys

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, netagent, pings, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

_FORGE = """
import sys
from scapy.all import IP, IPv6, UDP, Dot1Q, Ether, Raw, VXLAN, send
source, target, vni, inner_mac, inner_source, inner_target, tag = sys.argv[1:]
kind = IPv6 if ":" in inner_source else IP
inner = Ether(src="02:00:00:00:00:01", dst=inner_mac)
if tag:
    inner /= Dot1Q(vlan=int(tag))
send(IP(src=source, dst=target) / UDP(sport=5, dport=4789) / VXLAN(vni=int(vni), flags=8)
     / inner / kind(src=inner_source, dst=inner_target) / UDP(sport=7, dport=9999) / Raw(b"forged"), verbose=False)
"""

_CONTAINERS = {"h1": "one", "h2": "two", "h3": "three"}


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab, firewall: str) -> Lab:
    lab = make_lab(hosts=4, firewall=firewall)
    h1, h2, h3, _ = lab.hosts
    overlay = ("network", "create", "--driver", "vxlan")
    netagent(h1, *overlay, "--subnet", "192.168.0.0/16", "--subnet", "fd00:77::/64", "net")
    eventually(lambda: all("net" in netagent(host, "network", "ls").stdout for host in (h2, h3)))
    for host in (h1, h2, h3):
        run(host, _CONTAINERS[host.name], "--network", "net")
    others = [address(host, name, v) for host, name in ((h2, "two"), (h3, "three")) for v in (4, 6)]
    eventually(lambda: all(pings(h1, "one", other) for other in others))
    return lab


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_of_a_peers_container_is_taken(lab: Lab, version: int) -> None:
    h1, h2, h3, _ = lab.hosts
    assert _arrives(h1, h2, address(h2, "two", version), within=30)
    assert _arrives(h1, h3, address(h3, "three", version), within=30)


def test_a_machine_that_is_no_peer_injects_nothing(lab: Lab) -> None:
    h1, h2, _, stranger = lab.hosts
    assert not _arrives(h1, stranger, address(h2, "two"))


@pytest.mark.parametrize("source", ["8.8.8.8", "192.168.77.1", "neighbour"])
def test_a_peer_injects_nothing_with_a_source_that_is_not_behind_it(lab: Lab, source: str) -> None:
    h1, h2, _, _ = lab.hosts
    assert not _arrives(h1, h2, address(h1, "one") if source == "neighbour" else source)


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_injects_nothing_with_a_source_that_is_behind_another_peer(lab: Lab, version: int) -> None:
    h1, h2, h3, _ = lab.hosts
    assert not _arrives(h1, h2, address(h3, "three", version))


def test_a_peer_hides_no_source_behind_a_vlan_tag(lab: Lab) -> None:
    h1, h2, _, _ = lab.hosts
    assert not _arrives(h1, h2, address(h2, "two"), tag="0")


def test_a_container_sends_no_tunnel_packets_itself(lab: Lab) -> None:
    h1, h2, _, _ = lab.hosts
    own = address(h1, "one")
    assert _arrives(h2, h1, own, within=30)
    assert not _arrives(h2, h1, own, by="one"), "with its host's address, which is a peer's"


def _arrives(host: Host, sender: Host, inner_source: str, *, tag: str = "", by: str = "", within: float = 1) -> bool:
    """Tell whether the container of ``host`` receives a forged packet with ``inner_source``.

    ``sender`` sends it, or its container ``by``.
    """
    target = _CONTAINERS[host.name]
    tunnel = next(line.split()[1].rstrip(":") for line in _lines(host, "ip", "-o", "link") if ": nav" in line)
    fields = host.run("ip", "-d", "-o", "link", "show", tunnel).stdout.split()
    mac, vni = fields[fields.index("link/ether") + 1], fields[fields.index("vxlan") + 2]
    source = address(sender, by) if by else str(sender.ip)
    command = (sys.executable, "-c", _FORGE, source, str(host.ip), vni, mac, inner_source)
    command = (*command, address(host, target, 6 if ":" in inner_source else 4), tag)
    before = _received(host)
    if by:
        inside(sender, by, *command, check=True)
    else:
        sender.run(*command)
    try:
        return eventually(lambda: _received(host) > before, within=within)
    except AssertionError:
        return False


def _received(host: Host) -> int:
    """Return how many datagrams for a port without a listener the container has received."""
    command = ("exec", _CONTAINERS[host.name], "--", "grep", "-h", "-e", "^Udp:", "-e", "^Udp6NoPorts")
    _, four, six = netagent(host, *command, "/proc/net/snmp", "/proc/net/snmp6").stdout.splitlines()
    return int(four.split()[2]) + int(six.split()[1])


def _lines(host: Host, *command: str) -> list[str]:
    return host.run(*command).stdout.splitlines()
