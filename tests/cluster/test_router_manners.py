"""A host that forwards for its containers: it keeps the routes it learnt, and sends its containers nowhere else."""

import sys
from typing import Any

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6ND_Redirect

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, netagent, run
from tests.support.lab import MakeLab, eventually
from tests.support.wire import captured

pytestmark = pytest.mark.cluster

_ADVERTISE = """
import sys
from scapy.all import Ether, IPv6, conf, get_if_hwaddr, sendp
from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptSrcLLAddr
mine = get_if_hwaddr("eth0")
sendp(Ether(src=mine, dst="33:33:00:00:00:01") / IPv6(src=sys.argv[1], dst="ff02::1", hlim=255)
      / ICMPv6ND_RA(routerlifetime=1800) / ICMPv6NDOptSrcLLAddr(lladdr=mine), iface="eth0", verbose=False)
"""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(hosts=2)


def _advertise(router: Host) -> None:
    line = eventually(lambda: router.run("ip", "-6", "-o", "address", "show", "eth0", "scope", "link").stdout)
    router.run(sys.executable, "-c", _ADVERTISE, line.split()[3].partition("/")[0])


def _learnt(host: Host) -> bool:
    return "proto ra" in host.run("ip", "-6", "route", "show", "default").stdout


def test_a_default_route_learnt_from_advertisements_is_kept_and_learnt_again(lab: Lab) -> None:
    h1, h2 = lab.hosts
    assert h1.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout == "0\n"
    eventually(lambda: _advertise(h2) or _learnt(h1))
    netagent(h1, "network", "create", "--subnet", "fd00:55::/64", "six")
    run(h1, "one", "--network", "six")
    assert h1.run("sysctl", "-n", "net.ipv6.conf.all.forwarding").stdout == "1\n"
    assert _learnt(h1)
    h1.run("ip", "-6", "route", "del", "default")
    eventually(lambda: _advertise(h2) or _learnt(h1))
    # Only where a route was learnt: other interfaces stay as their owner set them.
    assert h1.run("sysctl", "-n", "net.ipv6.conf.default.accept_ra").stdout == "1\n"


def _redirects(host: Host, targets: list[str]) -> list[Any]:
    """Let the sandbox "speaker" ping ``targets`` and return the redirects that it got meanwhile."""
    into = ("nsenter", "--net=/run/netns/speaker", "--")
    with captured(host, "icmp6 and ip6[40] == 137 or icmp[icmptype] == icmp-redirect", inside=into) as frames:
        for target in targets:
            host.run(*into, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "10", target)
    return frames


def test_containers_are_sent_no_redirects(lab: Lab) -> None:
    (h1, _) = lab.hosts
    netagent(h1, "network", "create", "--subnet", "10.44.0.0/24", "--subnet", "fd00:44::/64", "two")
    for name in ("speaker", "hearer"):
        h1.run("ip", "netns", "add", name)
        netagent(h1, "attach", "--netns", f"/run/netns/{name}", "--name", name, "--network", "two")
    targets = [address(h1, "hearer"), address(h1, "hearer", 6)]
    # IPv6 goes through the host anyway.
    h1.run("ip", "-n", "speaker", "route", "add", f"{targets[0]}/32", "via", "10.44.0.1")
    h1.run("sysctl", "-qw", "net.ipv4.conf.all.send_redirects=1")
    assert not _redirects(h1, targets)
    # That there are some without the rule shows that this test listens rightly.
    h1.agent.stop()
    h1.run("nft", "flush", "chain", "inet", "netagent", "output_filter")
    try:
        frames = _redirects(h1, targets)
        assert any(ICMP in frame for frame in frames)
        assert any(ICMPv6ND_Redirect in frame for frame in frames)
    finally:
        h1.agent.start()
