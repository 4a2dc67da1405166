"""What is answered to a query: from the zones, or nothing because the name is for others to answer.

A name that exists here is never forwarded, whatever type is asked for: an AAAA query for a container without IPv6 has
an empty answer at once. A single label is never forwarded either (CVE-2025-8283 was such a leak elsewhere), and
neither is the reverse name of an address in a subnet of ours.
"""

import ipaddress
import struct
from collections.abc import Callable

from netagent.dns.message import CLASS_IN, Query, Rcode, Record, Type, encode_reply
from netagent.dns.zone import Entry, View
from netagent.model.address import Prefix

TTL_S = 5
"""Containers come and go: a client that caches longer talks to a neighbour's successor."""

_SRV = struct.Struct("!3H")
_PROTOCOLS = {b"_tcp": "tcp", b"_udp": "udp", b"_sctp": "sctp"}
Shuffle = Callable[[list[bytes]], None]


def answer(query: Query, view: View, *, limit: int, shuffle: Shuffle) -> bytes | None:
    """Return the reply, at most ``limit`` bytes; None if the query is to be forwarded.

    ``shuffle`` reorders addresses in place, so that clients which take the first spread themselves. It is called only
    if there is something to reorder: else the same query has the same reply until the zones change.
    """
    if query.in_class != CLASS_IN:
        return encode_reply(query, Rcode.REFUSED)
    entries = view.find(query.name)
    if entries:
        return encode_reply(query, Rcode.NOERROR, _addresses(query, entries, shuffle), limit=limit)
    if query.name.endswith(b".arpa"):
        known = _answer_reverse(query, view, limit)
        if known is not None:
            return known
    elif query.name.startswith(b"_"):
        known = _answer_service(query, view, limit, shuffle)
        if known is not None:
            return known
    is_single = query.name != b"" and b"." not in query.name
    return encode_reply(query, Rcode.NXDOMAIN) if is_single or not view.forwards else None


def _addresses(query: Query, entries: tuple[Entry, ...], shuffle: Shuffle) -> list[Record]:
    """Return the A or AAAA records of a name; ANY gets what is smallest (RFC 8482, section 4.1)."""
    records: list[Record] = []
    if query.type in (Type.A, Type.ANY):
        records = _records(Type.A, [packed for entry in entries for packed in entry.v4], shuffle)
    if query.type == Type.AAAA or (query.type == Type.ANY and not records):
        records = _records(Type.AAAA, [packed for entry in entries for packed in entry.v6], shuffle)
    return records


def _records(kind: Type, addresses: list[bytes], shuffle: Shuffle) -> list[Record]:
    if len(addresses) > 1:
        shuffle(addresses)
    return [Record(type=kind, ttl=TTL_S, data=packed) for packed in addresses]


def _answer_reverse(query: Query, view: View, limit: int) -> bytes | None:
    prefix = parse_reverse(query.name)
    if prefix is None:
        return None
    targets: list[bytes] = []
    if prefix.prefixlen == prefix.max_prefixlen:
        targets = [entry.target for entry in view.owners(prefix.network_address.packed) if entry.target]
    if targets:
        wanted = targets if query.type in (Type.PTR, Type.ANY) else []
        records = [Record(type=Type.PTR, ttl=TTL_S, data=target) for target in wanted]
        return encode_reply(query, Rcode.NOERROR, records, limit=limit)
    return encode_reply(query, Rcode.NXDOMAIN) if view.is_private(prefix) else None


def _answer_service(query: Query, view: View, limit: int, shuffle: Shuffle) -> bytes | None:
    """Answer ``_PORT._PROTOCOL.NAME``: the containers of that name which publish this port of theirs."""
    port, _, rest = query.name.partition(b".")
    protocol, _, host = rest.partition(b".")
    entries = view.find(host)
    if not entries:
        is_single = host != b"" and b"." not in host
        return encode_reply(query, Rcode.NXDOMAIN) if is_single else None
    number = int(port[1:]) if port[1:].isdigit() and len(port) <= 6 else 0
    offered = [e for e in entries if (number, _PROTOCOLS.get(protocol, "")) in e.ports and e.target]
    if not offered:
        return encode_reply(query, Rcode.NXDOMAIN)
    if query.type not in (Type.SRV, Type.ANY):
        return encode_reply(query, Rcode.NOERROR)
    shuffled = [entry.target for entry in offered if entry.target]
    if len(shuffled) > 1:
        shuffle(shuffled)
    answers = [Record(type=Type.SRV, ttl=TTL_S, data=_SRV.pack(0, 0, number) + target) for target in shuffled]
    additional = [
        Record(type=kind, ttl=TTL_S, data=packed, owner=entry.target)
        for entry in offered
        for kind, addresses in ((Type.A, entry.v4), (Type.AAAA, entry.v6))
        for packed in addresses
    ]
    return encode_reply(query, Rcode.NOERROR, answers, additional, limit=limit)


def parse_reverse(name: bytes) -> Prefix | None:
    """Return the prefix that a reverse name spells (RFC 1035 section 3.5, RFC 3596 section 2.5), or None.

    An address in full is a prefix of full length. Labels below it that are no part of an address are passed over, as in
    ``lb._dns-sd._udp.0.1.168.192.in-addr.arpa``.
    """
    labels = name.split(b".")
    if labels[-2:] == [b"in-addr", b"arpa"]:
        return _prefix(labels[:-2], base=10, bits=8, length=32)
    if labels[-2:] == [b"ip6", b"arpa"]:
        return _prefix(labels[:-2], base=16, bits=4, length=128)
    return None


def _prefix(labels: list[bytes], *, base: int, bits: int, length: int) -> Prefix | None:
    value = known = 0
    for label in reversed(labels):
        if known == length or not _is_digit(label, base, bits):
            break
        value, known = value << bits | int(label, base), known + bits
    if not known:
        return None
    value <<= length - known
    return ipaddress.IPv4Network((value, known)) if length == 32 else ipaddress.IPv6Network((value, known))


def _is_digit(label: bytes, base: int, bits: int) -> bool:
    if base == 16:
        return len(label) == 1 and label in b"0123456789abcdef"
    return label.isdigit() and len(label) <= 3 and int(label) < 1 << bits
