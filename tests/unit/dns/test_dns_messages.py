"""Packets of friends and of enemies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRROPT

from netagent.dns.message import NotAQuery, Query, Rcode, encode_name, encode_reply, is_reply_to, parse_query, with_id
from netagent.dns.resolv import parse_resolv_conf, render_resolv_conf

HEADER = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
labels = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=4)


def _wire(parts: list[bytes]) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


@given(st.binary(max_size=600) | st.binary(max_size=300).map(lambda tail: HEADER + tail))
def test_any_bytes_are_a_query_or_are_not(packet: bytes) -> None:
    try:
        query = parse_query(packet)
    except NotAQuery as other:
        refusal = other.reply or packet
        query = None
    else:
        refusal = packet
    assert refusal[:2] == packet[:2]
    if query is not None:
        reply = encode_reply(query, Rcode.NXDOMAIN)
        assert is_reply_to(query, query.id, reply)
        assert not is_reply_to(query, query.id ^ 1, reply)


@given(labels, st.integers(0, 65535))
def test_a_name_of_any_bytes_is_read_and_sent_back(parts: list[bytes], kind: int) -> None:
    packet = HEADER + _wire(parts) + kind.to_bytes(2, "big") + b"\0\1"
    if len(_wire(parts)) > 255:
        with pytest.raises(NotAQuery):
            parse_query(packet)
        return
    query = parse_query(packet)
    assert query.type == kind
    assert query.name.replace(b"\\\\", b"").replace(b"\\.", b"").count(b".") == len(parts) - 1
    assert encode_reply(query, Rcode.NOERROR)[12:] == packet[12:]


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        (HEADER + b"\xc0\x0c\0\1\0\1", Rcode.FORMERR),  # a pointer to itself
        (HEADER + b"\1a\xc0\x0c\0\1\0\1", Rcode.FORMERR),
        (HEADER + b"\x41" + b"a" * 65 + b"\0\0\1\0\1", Rcode.FORMERR),
        (HEADER + b"\1a\0\0\1\0\1junk", Rcode.FORMERR),
        (HEADER + b"\1a\0\0\1", Rcode.FORMERR),
        (HEADER[:5] + b"\2" + HEADER[6:] + b"\1a\0\0\1\0\1" * 2, Rcode.FORMERR),
        (HEADER[:2] + b"\x28\0" + HEADER[4:] + b"\1a\0\0\1\0\1", Rcode.NOTIMP),
    ],
)
def test_what_no_resolver_sends_is_refused(packet: bytes, rcode: Rcode) -> None:
    with pytest.raises(NotAQuery) as refused:
        parse_query(packet)
    assert refused.value.reply is not None
    assert DNS(refused.value.reply).rcode == rcode


def test_replies_are_never_answered() -> None:
    with pytest.raises(NotAQuery) as refused:
        parse_query(bytes(DNS(qr=1, qd=DNSQR(qname="web"))))
    assert refused.value.reply is None


def test_a_later_edns_is_told_which_one_is_spoken_here() -> None:
    with pytest.raises(NotAQuery) as refused:
        parse_query(bytes(DNS(qd=DNSQR(qname="web"), ar=[DNSRROPT(version=1)])))
    assert refused.value.reply is not None
    reply = DNS(refused.value.reply)
    assert (reply.rcode, reply.ar[0].extrcode, reply.ar[0].version) == (0, 1, 0)


@given(st.text(max_size=300))
def test_a_name_goes_onto_the_wire_or_is_refused(name: str) -> None:
    wire = encode_name(name)
    if wire is not None:
        query = parse_query(HEADER + wire + b"\0\1\0\1")
        assert query.name == name.encode().lower()


def test_an_id_is_exchanged() -> None:
    query: Query = parse_query(HEADER + b"\1a\0\0\1\0\1")
    assert parse_query(with_id(HEADER + query.question, 7)).id == 7


def test_a_broken_resolv_conf_is_read_as_far_as_it_goes() -> None:
    read = parse_resolv_conf(
        "nameserver\nnameserver 1.2.3\nnameserver fe80::1%eth0 # comment\nnameserver 192.0.2.1\n\0\xff\n"
        "domain x\nsearch a.example b.example ; z\noptions timeout:1\nsearch\tc.example\n"
    )
    assert read.nameservers == ("fe80::1%eth0", "192.0.2.1")
    assert read.search == ("c.example",)
    text = render_resolv_conf(read, ("10.1.0.1",))
    assert text == "nameserver 10.1.0.1\nsearch c.example\noptions timeout:1 ndots:0\n"
