"""Replies as ``netagent dns`` reads them: scapy's, and what no server should send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRRMX, DNSRRSRV

from netagent.dns.message import parse_query
from netagent.dns.reply import TYPES, BadReply, encode_query, parse_reply


def answers(*records: DNSRR) -> list[tuple[str, str]]:
    packet = bytes(DNS(qr=1, qd=DNSQR(qname="web"), an=list(records)))
    return [(answer.type, answer.data) for answer in parse_reply(packet).answers]


def test_the_usual_records_are_readable() -> None:
    assert answers(
        DNSRR(rrname="web", type="A", rdata="10.1.0.5"),
        DNSRR(rrname="web", type="AAAA", rdata="fd00::5"),
        DNSRR(rrname="web", type="PTR", rdata="web.example"),
        DNSRR(rrname="web", type="TXT", rdata=[b"a b", b"\x07"]),
        DNSRRSRV(rrname="web", priority=1, weight=2, port=80, target="web.example"),
        DNSRRMX(rrname="web", preference=10, exchange="mail.example"),
        DNSRR(rrname="web", type=65280, rdata=b"\x01\x02"),
    ) == [
        ("A", "10.1.0.5"),
        ("AAAA", "fd00::5"),
        ("PTR", "web.example."),
        ("TXT", '"a b" "\\007"'),
        ("SRV", "1 2 80 web.example."),
        ("MX", "10 mail.example."),
        ("TYPE65280", "\\# 2 0102"),
    ]


HEADER = b"\0\0\x81\x80\0\1\0\1\0\0\0\0"


@given(st.binary(max_size=600) | st.binary(max_size=300).map(lambda tail: HEADER + tail))
def test_any_bytes_are_a_reply_or_are_not(packet: bytes) -> None:
    try:
        reply = parse_reply(packet)
    except BadReply:
        return
    assert all(answer.data.isprintable() and answer.name.isprintable() for answer in reply.answers)


@pytest.mark.parametrize(
    "tail", [b"\xc0\x0c\0\1\0\1", b"\1a\xc0\x0e\0\1\0\1", b"\1a\0\0\1\0\1\xc0\x30\0\1\0\1\0\0\0\1\0\0"]
)
def test_a_name_that_would_never_end_is_refused(tail: bytes) -> None:
    with pytest.raises(BadReply):
        parse_reply(HEADER + tail)


@given(st.text(max_size=300), st.sampled_from(sorted(TYPES)))
def test_a_query_is_one_that_our_own_server_understands(name: str, kind: str) -> None:
    packet = encode_query(name, TYPES[kind])
    if packet is not None:
        assert parse_query(packet).type == TYPES[kind]
