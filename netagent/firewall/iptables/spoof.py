"""Anti-spoofing (``firewall.spoof``) by ebtables, whose PREROUTING stands before br_netfilter as well.

ebtables knows no goto and no comments: every check returns what is right and refuses the rest at its end, and which
element a rule is for is read back from its text.
"""

import re
from collections.abc import Iterator

from netagent.firewall.iptables.pieces import PREFIX, Frame, Piece, frames, parts, rules
from netagent.firewall.spoof import PORT_PREFIX

_BRIDGE = ("bridge",)
_REFUSE = f"-j {PREFIX}REFUSE"

FRAMES: tuple[Frame, ...] = (
    *frames(
        "SPOOF",
        table="nat",
        families=_BRIDGE,
        hooks=("PREROUTING",),
        head=(
            f"-i ! {PORT_PREFIX}+ -j RETURN",
            f"-j {PREFIX}MACS",
            f"-j {PREFIX}PROTOCOLS",
            f"-p ARP -j {PREFIX}ARP-MACS",
            f"-p ARP -j {PREFIX}ARP",
            f"-p IPv4 -j {PREFIX}IPV4",
            f"-p IPv6 -j {PREFIX}IPV6",
        ),
    ),
    *frames("MACS", table="nat", families=_BRIDGE, tail=(_REFUSE,)),
    *frames(
        "PROTOCOLS",
        table="nat",
        families=_BRIDGE,
        head=("-p ARP -j RETURN", "-p IPv4 -j RETURN", "-p IPv6 -j RETURN", _REFUSE),
    ),
    *frames("ARP-MACS", table="nat", families=_BRIDGE, tail=(_REFUSE,)),
    *frames(
        "ARP",
        table="nat",
        families=_BRIDGE,
        head=("-p ARP --arp-op Request --arp-ip-src 0.0.0.0 -j RETURN",),
        tail=(_REFUSE,),
    ),
    *frames(
        "IPV4",
        table="nat",
        families=_BRIDGE,
        head=(
            f"-p IPv4 --ip-proto icmp --ip-icmp-type redirect {_REFUSE}",
            f"-p IPv4 --ip-proto udp --ip-sport 67 {_REFUSE}",
        ),
        tail=(_REFUSE,),
    ),
    *frames(
        "IPV6",
        table="nat",
        families=_BRIDGE,
        head=(
            f"-p IPv6 --ip6-proto ipv6-icmp --ip6-icmp-type router-advertisement {_REFUSE}",
            f"-p IPv6 --ip6-proto ipv6-icmp --ip6-icmp-type redirect {_REFUSE}",
            f"-p IPv6 --ip6-proto udp --ip6-sport 547 {_REFUSE}",
        ),
        tail=(
            "-p IPv6 --ip6-src :: --ip6-proto ipv6-icmp --ip6-icmp-type neighbour-solicitation -j RETURN",
            "-p IPv6 --ip6-src :: --ip6-proto ipv6-icmp --ip6-icmp-type 131/0:255 -j RETURN",
            "-p IPv6 --ip6-src :: --ip6-proto ipv6-icmp --ip6-icmp-type 143/0:255 -j RETURN",
            _REFUSE,
        ),
    ),
    *frames("REFUSE", table="nat", families=_BRIDGE, head=("-j DROP",)),
)

_ELEMENTS = (
    ("bridge/macs", re.compile(r"-s (?P<mac>\S+) -i (?P<port>\S+) -j RETURN")),
    ("bridge/macs", re.compile(r"-p ARP -i (?P<port>\S+) --arp-mac-src (?P<mac>\S+) -j RETURN")),
    ("bridge/sources4", re.compile(r"-p ARP -s (?P<mac>\S+) -i (?P<port>\S+) --arp-ip-src (?P<address>\S+) -j RETURN")),
    ("bridge/sources4", re.compile(r"-p IPv4 -s (?P<mac>\S+) -i (?P<port>\S+) --ip-src (?P<address>\S+) -j RETURN")),
    ("bridge/sources6", re.compile(r"-p IPv6 -s (?P<mac>\S+) -i (?P<port>\S+) --ip6-src (?P<address>\S+) -j RETURN")),
)


def macs(element: str) -> Iterator[Piece]:
    """Yield the rules for the MAC of an endpoint."""
    port, mac = parts(element)
    yield from rules("MACS", f"-s {mac} -i {port} -j RETURN", table="nat", families=_BRIDGE)
    yield from rules("ARP-MACS", f"-p ARP -i {port} --arp-mac-src {mac} -j RETURN", table="nat", families=_BRIDGE)


def sources4(element: str) -> Iterator[Piece]:
    """Yield the rules for an IPv4 address of an endpoint."""
    port, mac, address = parts(element)
    own = f"-s {mac} -i {port}"
    yield from rules("ARP", f"-p ARP {own} --arp-ip-src {address} -j RETURN", table="nat", families=_BRIDGE)
    yield from rules("IPV4", f"-p IPv4 {own} --ip-src {address} -j RETURN", table="nat", families=_BRIDGE)


def sources6(element: str) -> Iterator[Piece]:
    """Yield the rule for an IPv6 address of an endpoint."""
    port, mac, address = parts(element)
    text = f"-p IPv6 -s {mac} -i {port} --ip6-src {address} -j RETURN"
    yield from rules("IPV6", text, table="nat", families=_BRIDGE)


def element_of(rule: str) -> tuple[str, str] | None:
    """Return the set and the element that a rule is for, or None if it is for none."""
    for set_name, pattern in _ELEMENTS:
        if found := pattern.fullmatch(rule):
            named = found.groupdict()
            return set_name, " . ".join(named[part] for part in ("port", "mac", "address") if part in named)
    return None
