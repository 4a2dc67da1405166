"""Who reaches a published port: {host, 127.0.0.1, ::1, LAN, other container, itself, other network} x {tcp, udp} x
{IPv4, IPv6}, cell by cell, and with which address the container sees its client. The table is that of docs/ports.md.
"""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, netagent, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

PORT, PRIVATE_PORT = PORTS = 4000, 4001
PROTOCOLS = ("tcp", "udp")
CONTAINERS = {"other container": "neighbour", "itself": "web", "other network": "stranger", "other host": "remote"}
ROWS = ("host", "127.0.0.1", "::1", "LAN", *CONTAINERS)
PAGE = Path(__file__).parents[2] / "docs" / "ports.md"

SERVER = """
import selectors, socket
choose = selectors.DefaultSelector()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    server = socket.socket(socket.AF_INET6, kind)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", 80))
    if kind == socket.SOCK_STREAM:
        server.listen()
    choose.register(server, selectors.EVENT_READ)
while True:
    for key, _ in choose.select():
        if key.fileobj.type == socket.SOCK_STREAM:
            client, peer = key.fileobj.accept()
            client.sendall(peer[0].encode())
            client.close()
        else:
            _, peer = key.fileobj.recvfrom(100)
            key.fileobj.sendto(peer[0].encode(), peer)
"""
"""Tells every client on port 80, TCP and UDP, the address that it came from."""

CLIENT = """
import json, socket, sys
answers = {}
for protocol, target, port, patience in json.loads(sys.argv[1]):
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[protocol]
    with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, kind) as client:
        client.settimeout(patience)
        try:
            client.connect((target, port))
            client.send(b"?")
            answer = client.recv(100).decode().removeprefix("::ffff:")
        except OSError:
            answer = ""
    answers[f"{protocol} {port} {target}"] = answer
print(json.dumps(answers))
"""
"""Asks several such servers and prints what each said, nothing for one that did not answer."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab, firewall: str) -> Lab:
    lab = make_lab(hosts=2, firewall=firewall)
    h1, h2 = lab.hosts
    subnets = ("--subnet", "192.168.0.0/16", "--subnet", "fd00:77::/64")
    netagent(h1, "network", "create", "--driver", "vxlan", *subnets, "app")
    netagent(h1, "network", "create", "--subnet", "10.44.0.0/24", "--subnet", "fd00:44::/64", "other")
    eventually(lambda: "app" in netagent(h2, "network", "ls").stdout)
    ports = ("-p", f"{PORT}:80", "-p", f"{PORT}:80/udp", "-p", "127.0.0.1:4001:80", "-p", "127.0.0.1:4001:80/udp")
    run(h1, "web", "--network", "app", *ports, command=(sys.executable, "-c", SERVER))
    run(h1, "neighbour", "--network", "app")
    run(h1, "stranger", "--network", "other")
    run(h2, "remote", "--network", "app")
    for host, container in ((h1, ""), (h2, "remote")):
        eventually(lambda host=host, container=container: all(_ask(host, container, ("tcp", ipv6(h1), PORT)).values()))
    return lab


Question = tuple[str, str, int]
_MOMENT = {PORT: 2.0, PRIVATE_PORT: 0.3}


def ipv6(host: Host) -> str:
    return f"fd00:198:18::{str(host.ip).rpartition('.')[2]}"


def _ask(
    host: Host, container: str, *questions: Question, patience: Mapping[Question, float] = MappingProxyType({})
) -> dict[Question, str]:
    """Return by (protocol, address, port) with which address the container saw the client, '' without an answer.

    ``patience`` is how many seconds an answer is waited for, a moment if nothing is said.
    """
    asked = [(*question, patience.get(question, _MOMENT[question[2]])) for question in questions]
    command = (sys.executable, "-c", CLIENT, json.dumps(asked))
    done = inside(host, container, *command) if container else host.run(*command, check=False)
    answers = json.loads(done.stdout)
    return {q: answers[f"{q[0]} {q[2]} {q[1]}"] for q in questions}


def _target(lab: Lab, row: str, version: int) -> str:
    """Return the address that the client of a row asks."""
    h1, _ = lab.hosts
    return row if row in ("127.0.0.1", "::1") else str(h1.ip) if version == 4 else ipv6(h1)


def _is_answered(row: str, protocol: str, target: str, port: int) -> bool:
    """Tell whether a question should be answered: it is waited for longer than for an answer that must not come."""
    if port == PRIVATE_PORT:
        return row == "127.0.0.1"
    return _documented()[row, protocol, 6 if ":" in target else 4] != "no answer"


@pytest.fixture(scope="module")
def answers(lab: Lab) -> "Answers":
    return Answers(lab)


class Answers:
    """What every client of the table is told, asked once for all cells of its row."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._found: dict[tuple[str, str], dict[tuple[str, str, int], str]] = {}

    def of(self, row: str, bridge_filter: str) -> dict[tuple[str, str, int], str]:
        """Return the answers to a row, asked with the given setting of br_netfilter."""
        if (row, bridge_filter) not in self._found:
            h1, h2 = self._lab.hosts
            for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
                h1.run("sysctl", "-qw", f"net.bridge.{name}={bridge_filter}")
            targets = dict.fromkeys(_target(self._lab, row, version) for version in (4, 6))
            questions = [(proto, target, port) for proto in PROTOCOLS for target in targets for port in PORTS]
            host = h2 if row in ("LAN", "other host") else h1
            answered = {q: 20.0 for q in questions if _is_answered(row, *q)}
            self._found[row, bridge_filter] = _ask(host, CONTAINERS.get(row, ""), *questions, patience=answered)
        return self._found[row, bridge_filter]


@functools.cache
def _names(lab: Lab) -> dict[str, str]:
    """Return what the page calls each address that a client may be seen with."""
    h1, h2 = lab.hosts
    names = {str(h1.ip): "host's", ipv6(h1): "host's", str(h2.ip): "own", ipv6(h2): "own"}
    for container in ("neighbour", "stranger", "web"):
        names |= {address(h1, container, version): "own" for version in (4, 6)}
    inside_network = [a for line in h1.run("ip", "-o", "address").stdout.splitlines() if (a := line.split()[3])]
    names |= {
        text.partition("/")[0]: "gateway's" for text in inside_network if text.startswith(("192.168.", "fd00:77:"))
    }
    return names | {address(h2, "remote", version): "own" for version in (4, 6)}


@functools.cache
def _documented() -> dict[tuple[str, str, int], str]:
    """Return the cells of the page's table: what a client is seen with, or that it gets no answer."""
    cells: dict[tuple[str, str, int], str] = {}
    for line in PAGE.read_text().splitlines():
        parts = [part.strip(" `") for part in line.strip("|").split("|")]
        if parts[0] in ROWS and len(parts) == 5:
            columns = (("tcp", 4), ("tcp", 6), ("udp", 4), ("udp", 6))
            cells |= {(parts[0], *column): cell for column, cell in zip(columns, parts[1:], strict=True)}
    return cells


def test_the_page_has_every_cell() -> None:
    assert {row for row, _, _ in _documented()} == set(ROWS)


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("row", ROWS)
def test_a_published_port(
    lab: Lab, answers: Answers, row: str, protocol: str, version: int, bridge_filter: str
) -> None:
    """Tried with bridged frames passing the FORWARD hooks (br_netfilter) and without."""
    expected = _documented()[row, protocol, version]
    if (row, version) in (("127.0.0.1", 6), ("::1", 4)):
        assert expected == "-"
        return
    seen = answers.of(row, bridge_filter)[protocol, _target(lab, row, version), PORT]
    if expected == "no answer":
        assert seen == ""
    else:
        assert seen, "no answer"
        assert _names(lab).get(seen, seen) in re.split(" or ", expected)


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("row", [row for row in ROWS if row != "127.0.0.1"])
def test_a_port_published_on_loopback_is_reached_by_nobody_else(
    lab: Lab, answers: Answers, row: str, protocol: str, bridge_filter: str
) -> None:
    assert answers.of("127.0.0.1", bridge_filter)[protocol, "127.0.0.1", PRIVATE_PORT]
    reached = [key for key, seen in answers.of(row, bridge_filter).items() if seen and key[2] == PRIVATE_PORT]
    assert not reached


SCTP_SERVER = """
from scapy.all import IP, IPv6, SCTP, SCTPChunkInit, SCTPChunkInitAck, send, sniff
wanted = lambda packet: SCTPChunkInit in packet
tell = lambda: print("ready", flush=True)
(packet,) = sniff(iface="eth0", lfilter=wanted, count=1, timeout=60, started_callback=tell)
layer = IPv6 if IPv6 in packet else IP
init = packet[SCTPChunkInit]
answer = SCTPChunkInitAck(init_tag=7, init_tsn=7, a_rwnd=1500, n_out_streams=1, n_in_streams=1)
reply = layer(src=packet[layer].dst, dst=packet[layer].src)
send(reply / SCTP(sport=packet[SCTP].dport, dport=packet[SCTP].sport, tag=init.init_tag) / answer, verbose=False)
"""
SCTP_CLIENT = """
import subprocess
import sys
from scapy.all import IP, IPv6, SCTP, SCTPChunkInit, SCTPChunkInitAck, sr1
layer = IPv6 if ":" in sys.argv[1] else IP
init = SCTPChunkInit(init_tag=5, init_tsn=1, a_rwnd=1500, n_out_streams=1, n_in_streams=1)
packet = layer(dst=sys.argv[1]) / SCTP(sport=5000, dport=int(sys.argv[2]), tag=0) / init
answer = sr1(packet, timeout=30, verbose=False, filter="sctp")
print(answer is not None and SCTPChunkInitAck in answer and (answer[layer].src, answer[SCTP].sport))
"""


@pytest.mark.parametrize("version", [4, 6])
def test_sctp_packets_are_translated_both_ways(lab: Lab, version: int) -> None:
    """With crafted packets: few kernels have SCTP sockets, but NAT and connection tracking know the protocol."""
    h1, h2 = lab.hosts
    target = _target(lab, "LAN", version)
    netagent(h1, "publish", "neighbour", "4002:80/sctp")
    server = h1.popen("netagent", "exec", "neighbour", "--", sys.executable, "-c", SCTP_SERVER, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline()
        answer = h2.run(sys.executable, "-c", SCTP_CLIENT, target, "4002").stdout.strip()
    finally:
        server.kill()
        server.communicate()
        netagent(h1, "unpublish", "neighbour", "4002:80/sctp")
    assert answer == str((target, 4002))
