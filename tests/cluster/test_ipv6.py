"""IPv6 from the first packet: alone, beside IPv4, on one host and across hosts."""

import json
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import (
    address,
    dump,
    fetches,
    inside,
    netagent,
    pings,
    refusal,
    run,
    same,
    serve_name,
    telling_client_addresses,
)
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


PORTS = {"only-bridge": 4010, "only-vxlan": 4011, "only-route": 4012}
UNDERLAY6 = ("fd00:198:18::1", "fd00:198:18::2")


@pytest.fixture(scope="module", params=["bridge", "vxlan", "route"])
def six_only(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """A network without IPv4, its subnet chosen by the agent, with a container that answers on port 80."""
    h1, h2 = lab.hosts
    driver: str = request.param
    name = f"only-{driver}"
    netagent(h1, "network", "create", "--driver", driver, "--ipv4=false", "--ipv6", name)
    if driver != "bridge":
        eventually(lambda: name in netagent(h2, "network", "ls").stdout)
    port = PORTS[name]
    serve_name(h1, f"{name}-web", "--network", name, "-p", f"{port}:80")
    run(h1, f"{name}-client", "--network", name)
    yield name
    netagent(h1, "rm", "-f", f"{name}-web", f"{name}-client")


def test_a_network_without_ipv4_has_none_of_it(lab: Lab, six_only: str) -> None:
    (h1, _) = lab.hosts
    (shown,) = json.loads(netagent(h1, "network", "inspect", six_only).stdout)
    assert (shown["EnableIPv4"], shown["EnableIPv6"], len(shown["IPAM"]["Config"])) == (False, True, 1)
    client = f"{six_only}-client"
    assert inside(h1, client, "ip", "-4", "address", "show", "eth0", check=True).stdout == ""
    gateway = shown["IPAM"]["Config"][0]["Gateway"]
    assert f"default via {gateway} dev eth0" in inside(h1, client, "ip", "-6", "route", check=True).stdout
    assert pings(h1, client, gateway)
    assert pings(h1, client, address(h1, f"{six_only}-web", 6))


def test_what_leaves_a_network_without_ipv4_has_the_hosts_address(lab: Lab, six_only: str) -> None:
    h1, h2 = lab.hosts
    with telling_client_addresses(h2, 4600, family=6):
        said = inside(h1, f"{six_only}-client", "socat", "-t", "30", "-", f"TCP6:[{UNDERLAY6[1]}]:4600").stdout
    assert ip_address(said.strip().strip("[]")) == ip_address(UNDERLAY6[0])


def test_a_port_of_a_container_without_ipv4_is_published_over_ipv6_alone(lab: Lab, six_only: str) -> None:
    h1, h2 = lab.hosts
    port = PORTS[six_only]
    assert netagent(h1, "port", f"{six_only}-web").stdout == f"80/tcp -> [::]:{port}\n"
    for host in (h1, h2):
        assert fetches(host, f"http://[{UNDERLAY6[0]}]:{port}/hostname", f"{six_only}-web")
        assert not fetches(host, f"http://{h1.ip}:{port}/hostname", f"{six_only}-web")


def test_another_mtu_reaches_a_running_container_without_ipv4_and_its_addresses_stay(lab: Lab, six_only: str) -> None:
    (h1, _) = lab.hosts
    client, web = f"{six_only}-client", address(h1, f"{six_only}-web", 6)
    netagent(h1, "network", "update", "--opt", "mtu=1300", six_only)
    assert "mtu 1300" in inside(h1, client, "ip", "link", "show", "eth0").stdout
    assert pings(h1, client, web, options=("-s", "1252", "-M", "do"))
    assert not pings(h1, client, web, options=("-s", "1253", "-M", "do"))
    netagent(h1, "network", "update", "--opt", "mtu=", six_only)


def test_networks_are_apart_internal_ones_lead_nowhere_and_icc_separates_over_ipv6_too(lab: Lab) -> None:
    (h1, _) = lab.hosts
    create = ("network", "create", "--ipv4=false", "--ipv6")
    for name, options in (("open6", ()), ("inner6", ("--internal",)), ("apart6", ("--opt", "icc=false"))):
        netagent(h1, *create, *options, name)
        for number in (1, 2):
            run(h1, f"{name}-{number}", "--network", name)
    neighbours = {name: address(h1, f"{name}-2", 6) for name in ("open6", "inner6", "apart6")}
    targets = {**neighbours, "out": UNDERLAY6[1]}

    def reached() -> dict[str, set[str]]:
        return {
            name: {to for to, target in targets.items() if _answers(h1, f"{name}-1", target)} for name in neighbours
        }

    eventually(lambda: reached() == {"open6": {"open6", "out"}, "inner6": {"inner6"}, "apart6": {"out"}})
    for name in neighbours:
        netagent(h1, "rm", "-f", f"{name}-1", f"{name}-2")


def _answers(host: Host, name: str, target: str) -> bool:
    return inside(host, name, "ping", "-n", "-c", "1", "-W", "0.5", target).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--ipv4=false"], "IPv4 or IPv6 must be enabled"),
        (["--ipv4=false", "--subnet", "10.1.0.0/24", "--ipv6"], "conflicting options: IPv4 subnet and --ipv4=false"),
    ],
)
def test_a_network_of_no_family_is_refused(lab: Lab, arguments: list[str], words: str) -> None:
    (h1, _) = lab.hosts
    before = dump(h1)
    assert refusal(h1, "network", "create", *arguments, "nothing").startswith(words)
    assert same(h1, before)


def test_every_host_has_the_ipv6_routes_it_needs_and_no_pass_fails(lab: Lab) -> None:
    for host in lab.hosts:
        eventually(lambda host=host: "Kernel: as it should be" in netagent(host, "info").stdout)
