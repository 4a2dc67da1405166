"""Asking, from the client's side: a query out, a reply in. RFC 1035 section 4.

A reply may come from any server on the way: what is in it is read as hostile input. Compression pointers may only
lead backwards and each further back than the one before, so a name ends (RFC 9267 tells what else happens).
"""

import ipaddress
import struct
from dataclasses import dataclass

from netagent.dns.message import CLASS_IN, HEADER_SIZE, NAME_LIMIT, Type, encode_name

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33}
_NAMES = {number: name for name, number in TYPES.items()}
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!2HIH")
_RD = 0x0100


class BadReply(ValueError):
    """A packet that is no DNS message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One record of a reply in readable form; ``data`` is an address, a name, or what else the type holds."""

    name: str
    type: str
    ttl: int
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server said: its code, and the records of the answer section."""

    rcode: int
    answers: tuple[Answer, ...] = ()


def encode_query(name: str, kind: int, *, identity: int = 0) -> bytes | None:
    """Return a query for ``name``, None if it does not fit into one."""
    wire = b"\0" if name in ("", ".") else encode_name(name.removesuffix("."))
    if wire is None:
        return None
    return _HEADER.pack(identity, _RD, 1, 0, 0, 0) + wire + struct.pack("!2H", kind, CLASS_IN)


def parse_reply(packet: bytes) -> Reply:
    """Return what a reply says; BadReply if it is none."""
    try:
        _, flags, questions, answers, _, _ = _HEADER.unpack_from(packet)
        offset = HEADER_SIZE
        for _ in range(questions):
            offset = _read_name(packet, offset)[1] + 4
        found = []
        for _ in range(answers):
            answer, offset = _read_record(packet, offset)
            found.append(answer)
    except (struct.error, IndexError, ValueError) as error:
        raise BadReply(f"not a DNS reply: {error}") from None
    return Reply(rcode=flags & 0xF, answers=tuple(found))


def _read_record(packet: bytes, offset: int) -> tuple[Answer, int]:
    name, offset = _read_name(packet, offset)
    kind, _, ttl, length = _RECORD.unpack_from(packet, offset)
    offset += _RECORD.size
    if offset + length > len(packet):
        raise ValueError("a record is cut off")
    data = _read_data(packet, kind, offset, length)
    return Answer(name=name, type=_NAMES.get(kind, f"TYPE{kind}"), ttl=ttl, data=data), offset + length


def _read_data(packet: bytes, kind: int, offset: int, length: int) -> str:
    data = packet[offset : offset + length]
    if kind == Type.A:
        return str(ipaddress.IPv4Address(data))
    if kind == Type.AAAA:
        return str(ipaddress.IPv6Address(data))
    if kind in (Type.PTR, TYPES["NS"], TYPES["CNAME"]):
        return _read_name(packet, offset)[0]
    if kind == Type.SRV:
        priority, weight, port = struct.unpack_from("!3H", data)
        return f"{priority} {weight} {port} {_read_name(packet, offset + 6)[0]}"
    if kind == TYPES["MX"]:
        return f"{struct.unpack_from('!H', data)[0]} {_read_name(packet, offset + 2)[0]}"
    if kind == TYPES["TXT"]:
        return " ".join(_read_strings(data))
    return rf"\# {length} {data.hex()}".rstrip()


def _read_strings(data: bytes) -> list[str]:
    strings = []
    while data:
        length = data[0]
        strings.append(f'"{_printable(data[1 : 1 + length])}"')
        data = data[1 + length :]
    return strings


def _read_name(packet: bytes, offset: int) -> tuple[str, int]:
    """Return the name at ``offset``, and where what follows it begins."""
    labels: list[str] = []
    end, limit, size = 0, offset, 0
    while True:
        length = packet[offset]
        if length >= 0xC0:
            target = int.from_bytes(packet[offset : offset + 2], "big") & 0x3FFF
            end = end or offset + 2
            if target >= limit:
                raise ValueError("a compression pointer leads forward")
            offset = limit = target
            continue
        if length > 63:
            raise ValueError("an unknown kind of label")
        offset += 1 + length
        size += 1 + length
        if size > NAME_LIMIT or offset > len(packet):
            raise ValueError("a name is too long")
        if not length:
            return ".".join(labels) + ".", end or offset
        labels.append(_printable(packet[offset - length : offset]).replace(".", "\\."))


def _printable(data: bytes) -> str:
    """Return bytes as text that a terminal can show: what is no printable ASCII in decimal (RFC 1035 section 5.1)."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03d}" for byte in data)
