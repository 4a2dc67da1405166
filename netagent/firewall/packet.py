"""Packets as questions: "would a rule of somebody else's match this one?" answered with yes, no or unknown.

Rules come in the words of libnftables-json(5). What a packet leaves open (a client's address, its source port), and
every expression that is not known here (limits, marks, iptables' own extensions), makes a match unknown.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, TypeAlias

from netagent.model.address import Address

Json: TypeAlias = Mapping[str, Any]
Sets: TypeAlias = Mapping[str, Sequence[Any]]
"""Name of a set in the rule's table -> its elements."""

_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "ipv6-icmp": 58, "icmpv6": 58, "sctp": 132}
_FAMILIES = {4: ("ipv4", "ip"), 6: ("ipv6", "ip6")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a connection at one hook; None is what is not known, or may be anything.

    ``original_port`` is the destination port before translation, None if it was not translated.
    """

    hook: str
    version: int
    protocol: str | None = None
    iif: str | None = None
    oif: str | None = None
    source: Address | None = None
    destination: Address | None = None
    port: int | None = None
    original_port: int | None = None


def matches(packet: Packet, expression: Json, sets: Sets) -> bool | None:
    """Tell whether one expression of a rule lets ``packet`` go on to the next; None if that cannot be told."""
    if "match" not in expression:
        return None
    match = expression["match"]
    right = match.get("right")
    if isinstance(right, str) and right.startswith("@"):
        found = sets.get(right[1:])
        if found is None:
            return None
        right = {"set": found}
    result = _compare(packet, match.get("left"), right)
    if result is None:
        return None
    match match.get("op"):
        case "==" | "in":
            return result
        case "!=":
            return not result
        case _:
            return None


def _compare(packet: Packet, left: Any, right: Any) -> bool | None:
    """Tell whether what ``left`` names in the packet is, or is among, ``right``."""
    if isinstance(right, list):
        right = {"set": right}
    if isinstance(right, dict) and "set" in right:
        members = right["set"] if isinstance(right["set"], list) else [right["set"]]
        results = [_compare(packet, left, member) for member in members]
        return True if True in results else (None if None in results else False)
    if not isinstance(left, dict) or len(left) != 1:
        return None
    ((kind, of),) = left.items()
    if not isinstance(of, dict):
        return None
    reader = _READERS.get(kind)
    return reader(packet, of, right) if reader is not None else None


def _meta(packet: Packet, of: Json, right: Any) -> bool | None:
    match of.get("key"):
        case "iifname":
            return _is_interface(packet.iif, right)
        case "oifname":
            return _is_interface(packet.oif, right)
        case "l4proto":
            return _is_protocol(packet.protocol, right)
        case "nfproto" | "protocol":
            return bool(right in _FAMILIES[packet.version])
        case _:
            return None


def _payload(packet: Packet, of: Json, right: Any) -> bool | None:
    header, field = of.get("protocol"), of.get("field")
    if header in ("ip", "ip6"):
        if header != _FAMILIES[packet.version][1]:
            return False
        match field:
            case "saddr":
                return _is_address(packet.source, right)
            case "daddr":
                return _is_address(packet.destination, right)
            case "protocol" | "nexthdr":
                return _is_protocol(packet.protocol, right)
            case _:
                return None
    if header != "th" and _is_protocol(packet.protocol, header) is not True:
        return _is_protocol(packet.protocol, header)
    return _is_port(packet.port, right) if field == "dport" else None


def _conntrack(packet: Packet, of: Json, right: Any) -> bool | None:
    match of.get("key"):
        case "state":
            return bool(right == "new")
        case "status":
            return packet.original_port is not None if right == "dnat" else None
        case "direction":
            return bool(right == "original")
        case "proto-dst" if of.get("dir") == "original":
            return _is_port(packet.port if packet.original_port is None else packet.original_port, right)
        case _:
            return None


def _fib(packet: Packet, of: Json, right: Any) -> bool | None:
    if of.get("result") != "type" or of.get("flags") != ["daddr"] or packet.hook not in ("forward", "input"):
        return None
    return bool(right == _KIND_OF_ADDRESS[packet.hook])


_KIND_OF_ADDRESS = {"forward": "unicast", "input": "local"}
"""What the routing table says of the destination, for the packets that are asked about here."""

_TRANSLATED = {
    "conntrack": re.compile(r"\bct state (?P<unless>! )?(?P<words>[\w,]+)"),
    "addrtype": re.compile(r"\bfib daddr type (?P<unless>!= )?(?P<words>\w+)"),
}


def matches_extension(packet: Packet, name: str, text: str) -> bool | None:
    """Tell whether the extension ``name`` of iptables lets ``packet`` pass, from the ``text`` of the whole rule.

    JSON has only the name, but in text nft translates the common ones into its own words.
    """
    pattern = _TRANSLATED.get(name)
    found = pattern.search(text) if pattern is not None else None
    if found is None:
        return None
    expected = "new" if name == "conntrack" else _KIND_OF_ADDRESS.get(packet.hook)
    return None if expected is None else (expected in found["words"].split(",")) != bool(found["unless"])


_READERS: Mapping[str, Callable[[Packet, Json, Any], bool | None]] = {
    "meta": _meta,
    "payload": _payload,
    "ct": _conntrack,
    "fib": _fib,
}


def _is_interface(name: str | None, pattern: Any) -> bool | None:
    if name is None or not isinstance(pattern, str):
        return None
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _is_protocol(protocol: str | None, wanted: Any) -> bool | None:
    if protocol is None:
        return None
    return bool(_NUMBERS.get(protocol, protocol) == _NUMBERS.get(str(wanted), wanted))


def _is_port(port: int | None, wanted: Any) -> bool | None:
    if port is None:
        return None
    if isinstance(wanted, int):
        return port == wanted
    match wanted:
        case {"range": [int(first), int(last)]}:
            return first <= port <= last
        case _:
            return None


def _is_address(address: Address | None, wanted: Any) -> bool | None:
    if address is None:
        return None
    try:
        match wanted:
            case str():
                return address == ip_address(wanted)
            case {"prefix": {"addr": first, "len": length}}:
                return address in ip_network((first, length), strict=False)
            case {"range": [first, last]}:
                return int(ip_address(first)) <= int(address) <= int(ip_address(last))
            case _:
                return None
    except (ValueError, TypeError):
        return None
