"""Connections are forgotten when their host port leads elsewhere, and no others; conntrack(8) is the witness."""

import itertools
from ipaddress import ip_address
from typing import Any

import pytest

from netagent.kernel.kernel import Kernel
from netagent.plan.desired import HostPort, Target
from netagent.plan.operation import FlushAddress, FlushPort, Plan
from tests.support.netns import Namespace

pytestmark = pytest.mark.kernel

_client_ports = itertools.count(20000)
LAN = "198.51.100.9"
ADDRESSES = {4: "198.51.100.1", 6: "2001:db8::1"}
OLD, NEW, OTHER = "10.9.0.2", "10.9.0.3", "10.9.0.4"


def track(host: Namespace, to: str, port: int, answerer: str, answering_port: int, *, protocol: str = "udp") -> None:
    """Have the kernel track a connection from the LAN to ``to``:``port`` that ``answerer`` answers."""
    client = "2001:db8::9" if ":" in to else LAN
    state = ("--state", "ESTABLISHED") if protocol == "tcp" else ()
    source = str(next(_client_ports))
    orig = ("--orig-src", client, "--orig-dst", to, "--sport", source, "--dport", str(port))
    reply = ("--reply-src", answerer, "--reply-dst", client)
    ports = ("--reply-port-src", str(answering_port), "--reply-port-dst", source)
    host.run("conntrack", "-I", "-p", protocol, *state, "-t", "600", *orig, *reply, *ports)


def tracked(host: Namespace, family: str = "ipv4") -> set[tuple[str, ...]]:
    """Return (protocol, original destination, its port, who answers) of all tracked connections."""
    found = set()
    for line in host.run("conntrack", "-L", "-f", family).splitlines():
        fields = [word.partition("=")[2] for word in line.split() if word.startswith(("src=", "dst=", "dport="))]
        found.add((line.split()[0], fields[1], fields[2], fields[3]))
    return found


def host_port(first: int, last: int = 0, **changes: Any) -> HostPort:
    return HostPort(**{"version": 4, "protocol": "udp", "first": first, "last": last or first, **changes})


async def _carry_out(kernel: Kernel, plan: Plan) -> None:
    await kernel.apply(plan)
    await kernel.drained()


@pytest.fixture
def host(host: Namespace) -> Namespace:
    host.ip("address", "add", f"{ADDRESSES[4]}/24", "dev", "lo")
    host.ip("address", "add", f"{ADDRESSES[6]}/64", "dev", "lo")
    return host


async def test_connections_to_a_port_that_is_published_anew_are_forgotten(kernel: Kernel, host: Namespace) -> None:
    here = ADDRESSES[4]
    track(host, here, 53, OLD, 5353)
    track(host, "127.0.0.1", 53, here, 53)
    kept = {
        (here, 54, OLD, 5353, "udp"),
        (here, 53, OLD, 5353, "tcp"),
        ("192.0.2.1", 53, "192.0.2.1", 53, "udp"),
    }
    for to, port, answerer, answering_port, protocol in kept:
        track(host, to, port, answerer, answering_port, protocol=protocol)
    track(host, "198.51.100.1", 99, NEW, 53)
    await _carry_out(kernel, Plan((FlushPort(host_port(53), Target(address=ip_address(NEW), port=53)),)))
    expected = {(protocol, to, str(port), answerer) for to, port, answerer, _, protocol in kept}
    assert tracked(host) == expected | {("udp", here, "99", NEW)}


async def test_connections_that_go_to_the_right_place_already_live_on(kernel: Kernel, host: Namespace) -> None:
    track(host, ADDRESSES[4], 53, NEW, 5353)
    await _carry_out(kernel, Plan((FlushPort(host_port(53), Target(address=ip_address(NEW), port=5353)),)))
    assert tracked(host)
    await _carry_out(kernel, Plan((FlushPort(host_port(53)),)))
    assert not tracked(host)


async def test_a_port_on_one_address_leaves_the_others_alone(kernel: Kernel, host: Namespace) -> None:
    track(host, ADDRESSES[4], 53, OLD, 53)
    track(host, "127.0.0.1", 53, OLD, 53)
    await _carry_out(kernel, Plan((FlushPort(host_port(53, address=ip_address("127.0.0.1"))),)))
    assert tracked(host) == {("udp", ADDRESSES[4], "53", OLD)}


async def test_a_range_is_read_once_and_matched_port_by_port(kernel: Kernel, host: Namespace) -> None:
    for port in (4999, 5000, 5001, 5002, 5003):
        track(host, ADDRESSES[4], port, OLD, port)
    await _carry_out(kernel, Plan((FlushPort(host_port(5000, 5002), Target(address=ip_address(OLD), port=4999)),)))
    assert {int(flow[2]) for flow in tracked(host)} == {4999, 5003}


async def test_many_ports_are_flushed_at_once(kernel: Kernel, host: Namespace) -> None:
    for port in range(6000, 6010):
        track(host, ADDRESSES[4], port, OLD, 80)
    await _carry_out(kernel, Plan(tuple(FlushPort(host_port(port)) for port in range(6000, 6009))))
    assert {int(flow[2]) for flow in tracked(host)} == {6009}


async def test_ipv6_connections_are_forgotten_too(kernel: Kernel, host: Namespace) -> None:
    track(host, ADDRESSES[6], 53, "fd00:9::2", 53)
    track(host, ADDRESSES[4], 53, OLD, 53)
    await _carry_out(kernel, Plan((FlushPort(host_port(53, version=6)),)))
    assert not tracked(host, "ipv6")
    assert tracked(host)


async def test_what_a_former_address_answered_is_forgotten(kernel: Kernel, host: Namespace) -> None:
    track(host, OLD, 80, OLD, 80, protocol="tcp")
    track(host, ADDRESSES[4], 53, OLD, 53)
    track(host, ADDRESSES[4], 54, OTHER, 53)
    await _carry_out(kernel, Plan((FlushAddress(ip_address(OLD)), FlushAddress(ip_address("fd00:9::2")))))
    assert tracked(host) == {("udp", ADDRESSES[4], "54", OTHER)}


async def test_what_goes_is_forgotten_before_the_answer_and_nothing_else(kernel: Kernel, host: Namespace) -> None:
    track(host, ADDRESSES[4], 53, NEW, 5353)
    track(host, "127.0.0.1", 53, NEW, 5353)
    track(host, ADDRESSES[6], 53, "fd00:9::3", 5353)
    track(host, ADDRESSES[4], 55, OLD, 80, protocol="tcp")
    kept = {
        (ADDRESSES[4], 53, OTHER, 53, "tcp"),
        (ADDRESSES[4], 54, OTHER, 53, "udp"),
        ("192.0.2.1", 53, "192.0.2.1", 53, "udp"),
    }
    for to, port, answerer, answering_port, protocol in kept:
        track(host, to, port, answerer, answering_port, protocol=protocol)
    gone = (FlushPort(host_port(53)), FlushPort(host_port(53, version=6)), FlushAddress(ip_address(OLD)))
    await kernel.apply(Plan(gone))
    assert tracked(host) == {(protocol, to, str(port), answerer) for to, port, answerer, _, protocol in kept}
    assert not tracked(host, "ipv6")


async def test_how_full_the_table_is_is_this_namespaces_own_count(kernel: Kernel, host: Namespace) -> None:
    assert (empty := await kernel.tracked_connections())
    assert empty.count == 0
    track(host, ADDRESSES[4], 53, OLD, 5353)
    assert (found := await kernel.tracked_connections())
    assert (found.count, found.limit) == (1, int(host.run("sysctl", "-n", "net.netfilter.nf_conntrack_max")))
