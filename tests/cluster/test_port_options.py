"""What can be written in -p beyond one port for everybody: ranges, sources, host addresses by default."""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import (
    dump,
    fetches,
    fetches_inside,
    inspect,
    netagent,
    refusal,
    run,
    same,
    serve_name,
    telling_client_addresses,
)
from tests.support.lab import MakeLab

pytestmark = pytest.mark.cluster

TIMED_OUT = 28
"""Exit status of curl."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, _ = lab.hosts
    netagent(h1, "network", "create", "--subnet", "10.33.0.0/24", "--subnet", "fd00:33::/64", "app")
    run(h1, "neighbour", "--network", "app")
    return lab


def ipv6(host: Host) -> str:
    return f"fd00:198:18::{str(host.ip).rpartition('.')[2]}"


def serve_on(host: Host, name: str, port: int, *options: str) -> None:
    serve_name(host, name, "--network", "app", *options, port=port)


def test_a_range_leads_to_the_same_ports_and_is_one_element(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before = dump(h1)
    serve_on(h1, "ranged", 8500, "-p", "8000-8999:8000-8999")
    for where in (str(h1.ip), f"[{ipv6(h1)}]"):
        assert fetches(h2, f"http://{where}:8500/hostname", "ranged")
        assert fetches_inside(h1, "neighbour", f"http://{where}:8500/hostname", "ranged")
    assert fetches(h1, "http://127.0.0.1:8500/hostname", "ranged")
    elements = h1.run("nft", "list", "map", "inet", "netagent", "ranges4").stdout
    assert "elements = { tcp . 8000-8999 : 10.33.0." in elements
    lines = netagent(h1, "port", "ranged").stdout.splitlines()
    assert len(lines) == 2000
    assert lines[:2] == ["8000/tcp -> 0.0.0.0:8000", "8000/tcp -> [::]:8000"]
    assert "0.0.0.0:8000-8999->8000-8999/tcp" in netagent(h1, "ps").stdout
    taken = h1.run("socat", "TCP4-LISTEN:8998,reuseaddr", "STDOUT", check=False, timeout=30)
    assert "Address already in use" in taken.stderr
    netagent(h1, "rm", "-f", "ranged")
    assert same(h1, before)


def test_a_range_with_other_numbers_inside_is_an_element_each(lab: Lab) -> None:
    h1, h2 = lab.hosts
    serve_on(h1, "shifted", 9499, "-p", "7000-7999:9000-9999")
    assert fetches(h2, f"http://{h1.ip}:7499/hostname", "shifted")
    netagent(h1, "rm", "-f", "shifted")


def test_a_part_of_a_range_is_taken_back_and_given_to_another(lab: Lab) -> None:
    h1, h2 = lab.hosts
    serve_on(h1, "wide", 8500, "-p", "8000-8999:8000-8999")
    netagent(h1, "unpublish", "wide", "8400-8599:8400-8599")
    assert not fetches(h2, f"http://{h1.ip}:8500/hostname", "wide")
    serve_name(h1, "narrow", "--network", "app", "-p", "8400-8599:80")
    (line, _) = netagent(h1, "port", "narrow").stdout.splitlines()
    assert line == "80/tcp -> 0.0.0.0:8400"
    assert fetches(h2, f"http://{h1.ip}:8400/hostname", "narrow")
    netagent(h1, "publish", "wide", "8500:8500")
    assert fetches(h2, f"http://{h1.ip}:8500/hostname", "wide")
    for name in ("wide", "narrow"):
        netagent(h1, "rm", "-f", name)


def test_a_process_with_a_port_of_a_range_is_named_and_nothing_is_left(lab: Lab) -> None:
    h1, _ = lab.hosts
    before = dump(h1)
    with telling_client_addresses(h1, 8700):
        words = refusal(h1, "run", "-d", "-p", "8000-8999:8000-8999", "--", "sleep", "1", status=125)
    assert words.startswith("failed to bind host port 0.0.0.0:8700/tcp: address already in use")
    assert same(h1, before)


@pytest.mark.parametrize("family", [4, 6])
def test_only_the_sources_of_a_port_reach_it(lab: Lab, family: int) -> None:
    """Refused packets vanish: they reach neither the container nor a process of the host that took the port."""
    h1, h2 = lab.hosts
    allowed = str(h2.ip) if family == 4 else ipv6(h2)
    serve_on(h1, "secret", 80, "-p", f"4400:80@{allowed},10.99.0.0/16")
    url = f"http://{h1.ip}:4400/hostname" if family == 4 else f"http://[{ipv6(h1)}]:4400/hostname"
    other = f"http://[{ipv6(h1)}]:4400/hostname" if family == 4 else f"http://{h1.ip}:4400/hostname"
    assert fetches(h2, url, "secret")
    for refused in (url, other):
        result = h1.run("curl", "-s", "-m", "1", refused, check=False)
        assert (result.returncode, result.stdout) == (TIMED_OUT, "")
        assert not fetches_inside(h1, "neighbour", refused, "secret")
    assert h2.run("curl", "-s", "-m", "1", other, check=False).returncode == TIMED_OUT
    assert f"0.0.0.0:4400@10.99.0.0/16,{allowed}/" in netagent(h1, "port", "secret", "80").stdout.replace(
        f"{allowed}/32,10.99.0.0/16", f"10.99.0.0/16,{allowed}/"
    )
    assert "4400->80/tcp@" in netagent(h1, "ps").stdout
    (binding, _) = inspect(h1, "secret")["NetworkSettings"]["Ports"]["80/tcp"]
    assert any(source.startswith(f"{allowed}/") for source in binding["Sources"])
    netagent(h1, "rm", "-f", "secret")


def test_a_range_has_sources_too_and_they_go_with_it(lab: Lab) -> None:
    h1, h2 = lab.hosts
    before = dump(h1)
    serve_on(h1, "quiet", 8500, "-p", f"8000-8999:8000-8999@{h1.ip},127.0.0.0/8")
    assert fetches(h1, "http://127.0.0.1:8500/hostname", "quiet")
    assert not fetches(h2, f"http://{h1.ip}:8500/hostname", "quiet")
    netagent(h1, "unpublish", "quiet", "8500:8500")
    netagent(h1, "publish", "quiet", f"8500:8500@{h2.ip}")
    assert fetches(h2, f"http://{h1.ip}:8500/hostname", "quiet")
    assert not fetches(h1, "http://127.0.0.1:8500/hostname", "quiet")
    netagent(h1, "rm", "-f", "quiet")
    assert same(h1, before)


def test_a_network_says_on_which_addresses_its_ports_are_published(lab: Lab) -> None:
    h1, h2 = lab.hosts
    options = ("--opt", "host_binding_ipv4=127.0.0.1", "--opt", f"host_binding_ipv6={ipv6(h1)}")
    netagent(h1, "network", "create", "--subnet", "10.34.0.0/24", "--subnet", "fd00:34::/64", *options, "inward")
    serve_name(h1, "inner", "--network", "inward", "-p", "80", "-p", f"{h1.ip}:4500:80")
    bindings = json.loads(netagent(h1, "port", "inner", "80", "--format", "json").stdout)["80/tcp"]
    assert [b["HostIp"] for b in bindings] == ["127.0.0.1", str(h1.ip), ipv6(h1)]
    number = bindings[0]["HostPort"]
    assert bindings[2]["HostPort"] == number
    assert fetches(h1, f"http://127.0.0.1:{number}/hostname", "inner")
    assert fetches(h2, f"http://[{ipv6(h1)}]:{number}/hostname", "inner")
    assert fetches(h2, f"http://{h1.ip}:4500/hostname", "inner")
    assert not fetches(h2, f"http://{h1.ip}:{number}/hostname", "inner")
    netagent(h1, "rm", "-f", "inner")
    netagent(h1, "network", "rm", "inward")


def test_a_host_without_a_free_port_says_so_and_nothing_is_left(lab: Lab) -> None:
    h1, _ = lab.hosts
    before = dump(h1)
    setting = "net.ipv4.ip_local_port_range"
    usual = h1.run("sysctl", "-n", setting).stdout.strip()
    h1.run("sysctl", "-qw", f"{setting}=61000 61001")
    try:
        for ports in (("-p", "80", "-p", "81", "-p", "82"), ("-P", "--expose", "80-82")):
            said = refusal(h1, "run", "-d", "--network", "app", *ports, "--", "sleep", "1", status=125)
            assert said.startswith("all ports are allocated")
        run(h1, "last", "--network", "app", "-p", "80", "-p", "81")
        assert refusal(h1, "publish", "neighbour", "80").startswith("all ports are allocated")
        netagent(h1, "rm", "-f", "last")
    finally:
        h1.run("sysctl", "-qw", f"{setting}={usual}")
    assert same(h1, before)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[::1]:4000:80", "port cannot be published on [::1]: the kernel does not translate to or from it"),
        ("8000-8010:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8010"),
        ("4000:80@10.0.0.1/8", "invalid source range 10.0.0.1/8: it should be 10.0.0.0/8"),
        ("4000:80@", "no source range after @ or a comma"),
        ("300.1.1.1:1:1", "invalid IP address: 300.1.1.1"),
        ("1:x", "invalid containerPort: x"),
        ("x:1", "invalid hostPort: x"),
        ("1:1/icmp", "invalid proto: icmp"),
        ("4000:", "no port specified: 4000:<empty>"),
        ("192.0.2.77:1000-1999:1000-1999", "failed to bind host port 192.0.2.77:1000/tcp: cannot assign requested"),
        ("1\n:1", "invalid port: '1\\n:1'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_nothing_is_left(lab: Lab, text: str, words: str) -> None:
    h1, _ = lab.hosts
    before = dump(h1)
    for command in (("run", "-d", "-p", text, "--", "sleep", "1"), ("publish", "neighbour", text)):
        assert refusal(h1, *command, status=125 if command[0] == "run" else 1).startswith(words)
    assert same(h1, before)
