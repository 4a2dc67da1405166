"""DNS messages: queries in, replies out. RFC 1035 section 4, RFC 6891 (EDNS).

Everything that no stub resolver sends is refused: more than one question, records besides OPT, compression pointers
(a question stands first, there is nothing to point at), bytes behind the end. So there is no loop that a packet could
keep busy (CVE-2026-35406, CVE-2018-20994 were such).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

HEADER_SIZE = 12
NAME_LIMIT = 255
"""Bytes of a name with its length bytes, RFC 1035 section 2.3.4."""
LABEL_LIMIT = 63
PLAIN_SIZE = 512
"""Bytes of a UDP reply to a query without EDNS, RFC 1035 section 4.2.1."""
EDNS_SIZE = 1232
"""Bytes of the largest UDP packet we send or ask for: no path fragments it (dnsflagday.net/2020)."""
TCP_SIZE = 65535
CLASS_IN = 1

_HEADER = struct.Struct("!6H")
_QUESTION_END = struct.Struct("!2H")
_OPT = struct.Struct("!BHHBBHH")
_RECORD = struct.Struct("!2HIH")
_QR, _OPCODE, _AA, _TC, _RD, _RA, _CD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
_QUESTION_POINTER = b"\xc0\x0c"


class Type(IntEnum):
    """Record types that are more than a number here."""

    A = 1
    PTR = 12
    AAAA = 28
    SRV = 33
    OPT = 41
    ANY = 255


class Rcode(IntEnum):
    """RFC 1035 section 4.1.1; BADVERS is RFC 6891's, of 12 bits."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class NotAQuery(Exception):
    """A packet that is not answered from any zone: with ``reply``, or with silence if that is None."""

    def __init__(self, reply: bytes | None) -> None:
        super().__init__("not a query")
        self.reply = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question. ``name`` is in lower case with dots between labels, the root empty; ``question`` is as it came.

    ``edns_size`` is what the client says it can take in one UDP packet, None without EDNS.
    """

    id: int
    flags: int
    name: bytes
    type: int
    in_class: int
    question: bytes
    edns_size: int | None = None

    @property
    def udp_limit(self) -> int:
        """Bytes that a reply over UDP may have."""
        return PLAIN_SIZE if self.edns_size is None else min(max(self.edns_size, PLAIN_SIZE), EDNS_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of a reply; ``owner`` None stands for the name asked for, else it is in wire form."""

    type: int
    ttl: int
    data: bytes
    owner: bytes | None = None


def parse_query(packet: bytes) -> Query:
    """Return the question of a packet; NotAQuery says what to do with any other packet."""
    if len(packet) < HEADER_SIZE:
        raise NotAQuery(None)
    identity, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if flags & _QR:
        raise NotAQuery(None)
    if flags & _OPCODE:
        raise NotAQuery(_bare(identity, flags, Rcode.NOTIMP))
    if questions != 1 or answers or authorities or additional > 1:
        raise NotAQuery(_bare(identity, flags, Rcode.FORMERR))
    try:
        name, end = _parse_name(packet, HEADER_SIZE)
        kind, in_class = _QUESTION_END.unpack_from(packet, end)
        end += _QUESTION_END.size
        size, version = _parse_opt(packet, end) if additional else (None, 0)
        if not additional and end != len(packet):
            raise ValueError("bytes behind the question")
    except (ValueError, IndexError, struct.error):
        raise NotAQuery(_bare(identity, flags, Rcode.FORMERR)) from None
    query = Query(
        id=identity,
        flags=flags,
        name=name,
        type=kind,
        in_class=in_class,
        question=packet[HEADER_SIZE:end],
        edns_size=size,
    )
    if version:
        raise NotAQuery(encode_reply(query, Rcode.BADVERS))
    return query


def _parse_name(packet: bytes, offset: int) -> tuple[bytes, int]:
    """Return the name at ``offset`` in lower case, and where it ends; ValueError if it is none."""
    labels: list[bytes] = []
    start = offset
    while length := packet[offset]:
        if length > LABEL_LIMIT:
            raise ValueError("a compression pointer or an unknown kind of label")
        offset += 1 + length
        if offset - start >= NAME_LIMIT or offset >= len(packet):
            raise ValueError("the name is too long")
        label = packet[offset - length : offset]
        # A dot inside of a label must not look like one between two.
        labels.append(label.replace(b"\\", b"\\\\").replace(b".", b"\\."))
    return b".".join(labels).lower(), offset + 1


def _parse_opt(packet: bytes, offset: int) -> tuple[int, int]:
    """Return size and version of the OPT record that ends the packet; ValueError if it is something else."""
    owner, kind, size, _, version, _, length = _OPT.unpack_from(packet, offset)
    if owner or kind != Type.OPT or offset + _OPT.size + length != len(packet):
        raise ValueError("the record is not OPT, or not the end")
    return size, version


def encode_name(name: str) -> bytes | None:
    """Return ``name`` in wire form, None if it does not fit into one; names with escapes are not written."""
    labels = name.encode().split(b".")
    if "\\" in name or not all(1 <= len(label) <= LABEL_LIMIT for label in labels) or len(name) > NAME_LIMIT - 2:
        return None
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def encode_reply(
    query: Query,
    rcode: Rcode,
    answers: Sequence[Record] = (),
    additional: Sequence[Record] = (),
    *,
    limit: int = PLAIN_SIZE,
) -> bytes:
    """Return a reply of at most ``limit`` bytes; what does not fit is left out, answers with the TC bit set."""
    opt = b"" if query.edns_size is None else _OPT.pack(0, Type.OPT, EDNS_SIZE, rcode >> 4, 0, 0, 0)
    room = limit - HEADER_SIZE - len(query.question) - len(opt)
    body = [query.question]
    counts = [0, 0]
    flags = _QR | _AA | _RA | query.flags & (_RD | _CD) | rcode & 0xF
    for section, records in enumerate((answers, additional)):
        for record in records:
            encoded = (
                (record.owner or _QUESTION_POINTER)
                + _RECORD.pack(record.type, CLASS_IN, record.ttl, len(record.data))
                + record.data
            )
            if len(encoded) > room:
                flags |= 0 if section else _TC
                break
            room -= len(encoded)
            counts[section] += 1
            body.append(encoded)
    header = _HEADER.pack(query.id, flags, 1, counts[0], 0, counts[1] + bool(opt))
    return header + b"".join(body) + opt


def _bare(identity: int, flags: int, rcode: Rcode) -> bytes:
    return _HEADER.pack(identity, _QR | _RA | flags & (_OPCODE | _RD) | rcode, 0, 0, 0, 0)


def with_id(packet: bytes, identity: int) -> bytes:
    """Return ``packet`` under another id."""
    return identity.to_bytes(2, "big") + packet[2:]


def is_reply_to(query: Query, identity: int, packet: bytes) -> bool:
    """Tell whether ``packet`` is a server's reply to ``query`` that was sent under ``identity``."""
    if len(packet) < HEADER_SIZE + len(query.question):
        return False
    replied, flags, questions, *_ = _HEADER.unpack_from(packet)
    question = packet[HEADER_SIZE : HEADER_SIZE + len(query.question)]
    return bool(replied == identity and flags & _QR and questions == 1 and question.lower() == query.question.lower())


def rcode_of(reply: bytes) -> int:
    """Return the code of a reply, without EDNS's further bits."""
    return reply[3] & 0xF


def truncated(query: Query) -> bytes:
    """Return the reply that makes the client ask again over TCP."""
    reply = bytearray(encode_reply(query, Rcode.NOERROR))
    reply[2] = reply[2] & ~(_AA >> 8) | _TC >> 8
    return bytes(reply)
