"""What the process does with a packet, without its sockets."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR

from netagent.dns.control import NameRecord, NetworkRecord, Sync
from netagent.dns.server import Server
from netagent.dns.upstream import Client, Upstream
from netagent.dns.zone import Zones

FRONT = NetworkRecord(id="f", name="front", prefixes=("10.1.0.0/16",), gateways=("10.1.0.1",), internal=False)
HEADER = b"\0\7\1\0\0\1\0\0\0\0\0\0"
HERE = ("10.1.0.1", "10.1.0.9")


def web(*addresses: str) -> NameRecord:
    return NameRecord(id="1", network="f", container="c", names=("web",), addresses=addresses)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.socket(socket.AF_UNIX) as control:
        server = Server(control, Zones(), Upstream(tmp_path / "resolv.conf"))
        server.take_over(Sync(networks=(FRONT,), put=(web("10.1.0.5"),), reset=True))
        yield server


def addresses(server: Server, name: str, *, identity: int = 7) -> list[str]:
    reply = server.answer(bytes(DNS(id=identity, rd=1, qd=DNSQR(qname=name))), *HERE, tcp=False)
    assert isinstance(reply, bytes)
    read = DNS(reply)
    assert read.id == identity
    return [read.an[index].rdata for index in range(read.ancount)]


def test_a_reply_that_is_kept_has_the_id_of_each_question_and_goes_when_names_change(server: Server) -> None:
    assert [addresses(server, "web", identity=number) for number in (1, 2)] == [["10.1.0.5"]] * 2
    server.take_over(Sync(networks=(FRONT,), put=(web("10.1.0.6"),)))
    assert addresses(server, "web") == ["10.1.0.6"]
    server.take_over(Sync(networks=(FRONT,), put=(), drop=("1",)))
    assert addresses(server, "web") == []


def test_a_reply_with_a_choice_is_shuffled_every_time(server: Server) -> None:
    server.take_over(Sync(networks=(FRONT,), put=(web("10.1.0.5", "10.1.0.6", "10.1.0.7"),)))
    assert len({tuple(addresses(server, "web")) for _ in range(200)}) == 6


@given(packet=st.binary(max_size=600) | st.binary(max_size=300).map(lambda tail: HEADER + tail), tcp=st.booleans())
def test_any_packet_is_answered_or_passed_over(server: Server, packet: bytes, tcp: bool) -> None:
    reply = server.answer(packet, *HERE, tcp=tcp)
    if isinstance(reply, bytes):
        assert reply[:2] == packet[:2]
        assert reply[2] & 0x80
        assert len(reply) <= (65535 if tcp else 1232)
    elif reply is not None:
        reply.close()


def test_a_question_of_the_hosts_own_resolver_does_not_go_in_circles(tmp_path: Path) -> None:
    packet = bytes(DNS(id=7, rd=1, qd=DNSQR(qname="www.example")))

    async def ask() -> int:
        upstream = Upstream(tmp_path / "resolv.conf")
        with socket.socket(socket.AF_UNIX) as control:
            server = Server(control, Zones(), upstream)
        server.take_over(Sync(networks=(FRONT,), own=("127.0.0.153",), put=(web("10.1.0.5"),), reset=True))
        upstream._questions[packet[12:].lower()] = 1
        reply = server.answer(packet, "127.0.0.153", "127.0.0.1", tcp=False)
        assert reply is not None
        assert not isinstance(reply, bytes)
        return DNS(await reply).rcode

    assert asyncio.run(ask()) == 5


def test_the_servers_of_a_container_go_before_the_hosts(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\nnameserver 10.1.0.1\n")
    upstream = Upstream(path)
    assert upstream.servers(frozenset({"10.1.0.1"})) == ("192.0.2.1",)
    assert upstream.servers(frozenset(), Client(address="10.1.0.9", servers=("192.0.2.9",)).servers) == ("192.0.2.9",)
