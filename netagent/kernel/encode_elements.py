"""Elements of nftables' sets and maps as the kernel takes them, from the text of ``plan.desired.Ruleset``.

A set's type says how long each part of a key is; of a concatenation every part is padded to four bytes
(``NFT_REG32_SIZE``, net/netfilter/nf_tables_api.c). In a set of intervals a concatenation has its last value beside
its first (NFTA_SET_ELEM_KEY_END, include/uapi/linux/netfilter/nf_tables.h).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from socket import AF_INET, AF_INET6, inet_pton
from struct import Struct

from netagent.kernel.netlink import encode_attribute, encode_nested
from netagent.kernel.uapi import (
    NFT_GOTO,
    NFT_JUMP,
    NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
    NFTA_LIST_ELEM,
    NFTA_SET_ELEM_DATA,
    NFTA_SET_ELEM_KEY,
    NFTA_SET_ELEM_KEY_END,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
)
from netagent.plan.desired import ElementSet

_Encoder = Callable[[str], bytes]

_INTERFACE_BYTES = 16
"""IFNAMSIZ, linux/if.h."""
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "sctp": 132}
_VERDICTS = {"drop": 0, "accept": 1}
"""NF_DROP and NF_ACCEPT, linux/netfilter.h."""
_CHAINS = {"jump": NFT_JUMP, "goto": NFT_GOTO}
_OFFSET = re.compile(r"@th,\d+,(\d+)")
_SERVICE = Struct(">H2x")
_HEADS_BYTES = 8
"""Two attributes' headers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One part of a key or of data: how many bytes a value has, and how its text becomes those and padding.

    ``may_span`` tells whether its text may be a range or a prefix.
    """

    size: int
    encode: _Encoder
    may_span: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementLayout:
    """How the elements of one set or map are encoded; see ``layout_of``."""

    key: tuple[_Part, ...]
    data: tuple[_Part, ...] = ()
    has_verdicts: bool = False
    has_intervals: bool = False
    key_head: bytes
    end_head: bytes
    data_head: bytes
    """What stands before every key, the end of its interval, and data."""

    def encode(self, element: str, *, with_data: bool) -> bytes:
        """Return one NFTA_LIST_ELEM.

        ValueError, OverflowError, OSError or struct.error for a text that is no such element.
        """
        key, _, data = element.partition(" : ")
        attributes = self._encode_interval(key) if self.has_intervals else self.key_head + _join(self.key, key)
        if with_data and data:
            attributes += _verdict(data) if self.has_verdicts else self.data_head + _join(self.data, data)
        return _element_head(len(attributes)) + attributes

    def _encode_interval(self, text: str) -> bytes:
        spans = [_span(part, given) for part, given in zip(self.key, text.split(" . "), strict=True)]
        first, last = (" . ".join(span[side] for span in spans) for side in (0, 1))
        return self.key_head + _join(self.key, first) + self.end_head + _join(self.key, last)


def layout_of(declared: ElementSet) -> ElementLayout | None:
    """Return how a set's elements are encoded; None if they are not known here or made by rules.

    Not here are intervals of a single value: they are two elements each, and what lies between two of them depends on
    what is there already (nftables/src/intervals.c).
    """
    texts = declared.key.removeprefix("typeof ").split(" . ")
    has_intervals = "interval" in declared.flags
    has_verdicts = declared.data == "verdict"
    key = [_part(text) for text in texts]
    data = [] if declared.data is None or has_verdicts else [_part(text) for text in declared.data.split(" . ")]
    known = [part for part in (*key, *data) if part is not None]
    if len(known) < len(key) + len(data) or (has_intervals and len(key) == 1):
        return None
    key_parts, data_parts = tuple(known[: len(key)]), tuple(known[len(key) :])
    return ElementLayout(
        key=key_parts,
        data=data_parts,
        has_verdicts=has_verdicts,
        has_intervals=has_intervals,
        key_head=_heads(NFTA_SET_ELEM_KEY, key_parts),
        end_head=_heads(NFTA_SET_ELEM_KEY_END, key_parts),
        data_head=_heads(NFTA_SET_ELEM_DATA, data_parts),
    )


def encode_lists(layout: ElementLayout, elements: Iterable[str], *, with_data: bool, limit: int) -> Iterator[bytes]:
    """Yield the elements' attributes in groups of at most ``limit`` bytes: an attribute's length has 16 bits."""
    group: list[bytes] = []
    size = 0
    for element in elements:
        encoded = layout.encode(element, with_data=with_data)
        if group and size + len(encoded) > limit:
            yield b"".join(group)
            group, size = [], 0
        group.append(encoded)
        size += len(encoded)
    if group:
        yield b"".join(group)


def _join(parts: tuple[_Part, ...], text: str) -> bytes:
    return b"".join([part.encode(value) for part, value in zip(parts, text.split(" . "), strict=True)])


def _heads(kind: int, parts: tuple[_Part, ...]) -> bytes:
    """Return the headers of an attribute that holds one NFTA_DATA_VALUE made of ``parts``."""
    size = parts[0].size if len(parts) == 1 else sum((part.size + 3) & ~3 for part in parts)
    return encode_nested(kind, encode_attribute(NFTA_DATA_VALUE, bytes(size)))[:_HEADS_BYTES]


@lru_cache(maxsize=256)
def _element_head(size: int) -> bytes:
    return encode_nested(NFTA_LIST_ELEM, bytes(size))[: _HEADS_BYTES // 2]


def _verdict(text: str) -> bytes:
    word, _, chain = text.partition(" ")
    code = _CHAINS.get(word) if chain else _VERDICTS.get(word)
    if code is None:
        raise ValueError(f"unknown verdict {text!r}")
    attributes = encode_attribute(NFTA_VERDICT_CODE, (code & 0xFFFFFFFF).to_bytes(4))
    if chain:
        attributes += encode_attribute(NFTA_VERDICT_CHAIN, chain.encode() + b"\0")
    return encode_nested(NFTA_SET_ELEM_DATA, encode_nested(NFTA_DATA_VERDICT, attributes))


def _span(part: _Part, text: str) -> tuple[str, str]:
    """Return the first and last value of a part's text."""
    if not part.may_span:
        return text, text
    if "/" in text:
        network = ip_network(text)
        return str(network[0]), str(network[-1])
    first, dash, last = text.partition("-")
    return first, last if dash else first


@lru_cache(maxsize=64)
def _part(text: str) -> _Part | None:
    """Return how a part is encoded that is declared as ``text``: a type, or with ``typeof`` an expression."""
    offset = _OFFSET.fullmatch(text)
    if offset is not None:
        return _number((int(offset[1]) + 7) // 8)
    return {
        "ipv4_addr": _Part(size=4, encode=_address4),
        "ip saddr": _Part(size=4, encode=_address4),
        "ipv6_addr": _Part(size=16, encode=_address6),
        "ip6 saddr": _Part(size=16, encode=_address6),
        "inet_service": _Part(size=2, encode=lambda text: _SERVICE.pack(int(text))),
        "inet_proto": _Part(size=1, encode=_protocol, may_span=False),
        "ifname": _Part(size=_INTERFACE_BYTES, encode=_interface, may_span=False),
        "iifname": _Part(size=_INTERFACE_BYTES, encode=_interface, may_span=False),
        "ether_addr": _Part(size=6, encode=_mac, may_span=False),
    }.get(text)


def _number(size: int) -> _Part:
    padding = bytes(-size % 4)
    return _Part(size=size, encode=lambda text: int(text, 0).to_bytes(size) + padding)


@lru_cache(maxsize=256)
def _address4(text: str) -> bytes:
    return inet_pton(AF_INET, text)


@lru_cache(maxsize=256)
def _address6(text: str) -> bytes:
    return inet_pton(AF_INET6, text)


@lru_cache(maxsize=16)
def _protocol(text: str) -> bytes:
    number = _PROTOCOLS.get(text)
    return bytes([int(text) if number is None else number, 0, 0, 0])


def _interface(text: str) -> bytes:
    name = text.encode()
    if not 0 < len(name) < _INTERFACE_BYTES:
        raise ValueError(f"invalid interface name {text!r}")
    return name.ljust(_INTERFACE_BYTES, b"\0")


def _mac(text: str) -> bytes:
    octets = bytes.fromhex(text.replace(":", ""))
    if len(octets) != 6:
        raise ValueError(f"invalid MAC address {text!r}")
    return octets + bytes(2)
