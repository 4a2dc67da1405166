"""IPv6 from the first packet: alone, beside IPv4, on one host and across hosts."""

import pytest

from netagent.lab.lab import Lab
from tests.support.hosts import address, fetches, inside, netagent, pings, run, serve_name
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    overlay = ("network", "create", "--driver", "vxlan")
    netagent(h1, *overlay, "--subnet", "192.168.0.0/16", "--subnet", "fd00:77::/64", "both")
    netagent(h1, *overlay, "--subnet", "fd00:66::/64", "six")
    eventually(lambda: "six" in netagent(h2, "network", "ls").stdout)
    return lab


def test_the_first_packet_between_two_containers_of_one_host_arrives(lab: Lab) -> None:
    (h1, _) = lab.hosts
    netagent(h1, "network", "create", "--subnet", "fd00:55::/64", "local6")
    run(h1, "one", "--network", "local6")
    run(h1, "two", "--network", "local6")
    assert pings(h1, "one", address(h1, "two", 6))
    netagent(h1, "rm", "-f", "one")
    netagent(h1, "rm", "-f", "two")


@pytest.mark.parametrize("network", ["both", "six"])
def test_containers_of_two_hosts_reach_each_other(lab: Lab, network: str) -> None:
    h1, h2 = lab.hosts
    run(h1, f"{network}1", "--network", network)
    run(h2, f"{network}2", "--network", network)
    there, back = address(h2, f"{network}2", 6), address(h1, f"{network}1", 6)
    eventually(lambda: pings(h1, f"{network}1", there))
    assert pings(h1, f"{network}1", there, count=3)
    assert pings(h2, f"{network}2", back, count=3)
    assert h2.run("ping", "-n", "-c", "1", "-W", "2", back, check=False).returncode == 0


def test_a_fixed_ipv6_address_is_reached_from_the_other_host(lab: Lab) -> None:
    h1, h2 = lab.hosts
    run(h1, "fixed6", "--network", "both", "--ip", "fd00:77::9")
    run(h2, "asks6", "--network", "both")
    eventually(lambda: pings(h2, "asks6", "fd00:77::9"))
    assert "fd00:77::9/64" in inside(h1, "fixed6", "ip", "-6", "address", "show", "eth0", check=True).stdout


def test_a_port_is_published_on_both_families(lab: Lab) -> None:
    h1, h2 = lab.hosts
    serve_name(h1, "web6", "--network", "both", "-p", "4000:80")
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web6")
    assert fetches(h2, "http://[fd00:198:18::1]:4000/hostname", "web6")
    assert fetches(h1, "http://[fd00:198:18::1]:4000/hostname", "web6")
    assert netagent(h1, "port", "web6").stdout == "80/tcp -> 0.0.0.0:4000\n80/tcp -> [::]:4000\n"


def test_every_host_has_the_ipv6_routes_it_needs_and_no_pass_fails(lab: Lab) -> None:
    for host in lab.hosts:
        assert "Kernel: as it should be" in netagent(host, "info").stdout
