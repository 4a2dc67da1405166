"""VXLAN packets from a machine that is no peer, and packets from a peer that no container of its can have sent."""

import sys

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, netagent, pings, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

_FORGE = """
import sys
from scapy.all import IP, UDP, Ether, Raw, VXLAN, send
source, target, vni, inner_mac, inner_source, inner_target = sys.argv[1:]
inner = Ether(src="02:00:00:00:00:01", dst=inner_mac) / IP(src=inner_source, dst=inner_target)
send(IP(src=source, dst=target) / UDP(sport=5, dport=4789) / VXLAN(vni=int(vni), flags=8)
     / inner / UDP(sport=7, dport=9999) / Raw(b"forged"), verbose=False)
"""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab, firewall: str) -> Lab:
    lab = make_lab(hosts=3, firewall=firewall)
    h1, h2, _ = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "net")
    eventually(lambda: "net" in netagent(h2, "network", "ls").stdout)
    run(h1, "one", "--network", "net")
    run(h2, "two", "--network", "net")
    eventually(lambda: pings(h1, "one", address(h2, "two")))
    return lab


def test_a_packet_of_a_peers_container_is_taken(lab: Lab) -> None:
    h1, h2, _ = lab.hosts
    assert _arrives(h1, h2, address(h2, "two"))


def test_a_machine_that_is_no_peer_injects_nothing(lab: Lab) -> None:
    h1, h2, stranger = lab.hosts
    assert not _arrives(h1, stranger, address(h2, "two"))


@pytest.mark.parametrize("source", ["8.8.8.8", "192.168.77.1", "neighbour"])
def test_a_peer_injects_nothing_with_a_source_that_is_not_behind_it(lab: Lab, source: str) -> None:
    h1, h2, _ = lab.hosts
    assert not _arrives(h1, h2, address(h1, "one") if source == "neighbour" else source)


def _arrives(host: Host, sender: Host, inner_source: str) -> bool:
    """Tell whether the container ``one`` receives a forged packet with ``inner_source``, sent by ``sender``."""
    tunnel = next(line.split()[1].rstrip(":") for line in _lines(host, "ip", "-o", "link") if ": nav" in line)
    fields = host.run("ip", "-d", "-o", "link", "show", tunnel).stdout.split()
    mac, vni = fields[fields.index("link/ether") + 1], fields[fields.index("vxlan") + 2]
    command = (sys.executable, "-c", _FORGE, str(sender.ip), str(host.ip), vni, mac, inner_source)
    before = _received(host)
    sender.run(*command, address(host, "one"))
    try:
        return eventually(lambda: _received(host) > before, within=1)
    except AssertionError:
        return False


def _received(host: Host) -> int:
    """Return how many datagrams for a port without a listener the container has received."""
    counters = netagent(host, "exec", "one", "--", "grep", "^Udp:", "/proc/net/snmp").stdout.splitlines()
    return int(counters[1].split()[2])


def _lines(host: Host, *command: str) -> list[str]:
    return host.run(*command).stdout.splitlines()
