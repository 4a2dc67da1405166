"""Addresses, prefixes and MACs: one spelling each, strict parsers, and the few sums done on them.

Text that different programs read differently is refused (leading zeros, zone ids, IPv4-mapped IPv6), because a check
made on one reading protects nothing under another; CVE-2021-29921 and CVE-2024-4032 were such cases.
"""

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import NewType, TypeAlias

from netagent.errors import InvalidRequest

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Mac = NewType("Mac", str)
"""Six lower-case hex pairs joined by colons."""

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")


def parse_address(text: str, *, what: str = "IP address") -> Address:
    """Return the address that ``text`` spells, or raise InvalidRequest in Docker's words."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidRequest(f"invalid {what}: {text}") from None
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise InvalidRequest(f"invalid {what}: {text}", hint="give it without a zone and not IPv4-mapped")
    return address


def parse_underlay(text: str, *, what: str = "IP address") -> Address:
    """Return an address at which a host can be reached from another one."""
    address = parse_address(text, what=what)
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
        raise InvalidRequest(f"invalid {what}: {address} is no address that other hosts can reach")
    if address.version == 4 and int(address) == 0xFFFFFFFF:
        raise InvalidRequest(f"invalid {what}: {address} is the broadcast address")
    return address


def parse_prefix(text: str, *, what: str = "subnet") -> Prefix:
    """Return the prefix that ``text`` spells; one with host bits set is refused in Docker's words."""
    try:
        prefix = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise InvalidRequest(f"invalid {what} {text}: not a CIDR prefix", hint="for example 192.168.0.0/16") from None
    if prefix.version == 4 and str(prefix) == text:
        return prefix
    if "/" not in text:
        raise InvalidRequest(f"invalid {what} {text}: the prefix length is missing", hint=f"for example {text}/24")
    parse_address(text.partition("/")[0], what=f"{what} address")
    if str(prefix) != f"{ipaddress.ip_address(text.partition('/')[0])}/{text.partition('/')[2]}":
        raise InvalidRequest(f"invalid {what} {text}: it should be {prefix}")
    return prefix


def parse_mac(text: str) -> Mac:
    """Return a unicast, non-zero MAC in canonical spelling."""
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        raise InvalidRequest(f"invalid MAC address {text!r}", hint="for example 02:42:ac:11:00:02")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise InvalidRequest(f"invalid MAC address {text!r}", hint="a container needs a unicast address")
    return Mac(mac)


def derive_mac(*parts: str) -> Mac:
    """Return a locally administered unicast MAC that is a function of ``parts``.

    The same object has the same MAC after every restart, so peers' permanent neighbours stay right without asking.
    """
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    octets = bytes([(digest[0] & 0xFC) | 0x02]) + digest[1:6]
    return Mac(octets.hex(":"))


def host_prefix(address: Address) -> Prefix:
    """Return the /32 or /128 that holds just ``address``."""
    return ipaddress.ip_network(address)


def collapse(prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """Return the fewest prefixes that hold the same addresses; all of one family, sorted."""
    return tuple(ipaddress.collapse_addresses(list(prefixes)))  # type: ignore[type-var]


def nth(prefix: Prefix, index: int) -> Address:
    """Return the address ``index`` places after the first of ``prefix``."""
    return prefix[index]


def is_inside(inner: Prefix, outer: Prefix) -> bool:
    """Tell whether every address of ``inner`` is in ``outer``; prefixes of two families never are."""
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def overlap(one: Prefix, other: Prefix) -> bool:
    """Tell whether two prefixes share an address; prefixes of two families never do."""
    return one.version == other.version and one.overlaps(other)


def blocks_of(prefix: Prefix, length: int) -> Iterator[Prefix]:
    """Yield the blocks of ``length`` that ``prefix`` is cut into, in order."""
    return iter(prefix.subnets(new_prefix=length))


def is_unassignable(address: Address, subnet: Prefix) -> bool:
    """Tell whether ``address`` is one that no interface in ``subnet`` can have.

    For IPv4 the network and broadcast addresses; for IPv6 the subnet-router anycast address (RFC 4291, 2.6.1).
    """
    if subnet.num_addresses <= 2:  # /31 (RFC 3021), /127 and single addresses have neither
        return False
    if address == subnet.network_address:
        return True
    return subnet.version == 4 and address == subnet.broadcast_address
