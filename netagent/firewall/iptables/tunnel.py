"""Tunnels (``firewall.tunnel``): an ipset of peers for each network number that is ours.

The number is read by ``u32``: 24 bits at offset 12 of the UDP header, behind an IPv4 header of any length (its length
field counts words) or an IPv6 header of 40 bytes.
"""

from collections.abc import Iterator

from netagent.firewall.iptables.isolate import GRE, VXLAN
from netagent.firewall.iptables.pieces import (
    BOTH,
    IPSET_FAMILIES,
    PREFIX,
    Frame,
    Ipset,
    Member,
    Piece,
    frames,
    parts,
    rules,
)

_NUMBER = {4: "0x0>>0x16&0x3c@0xc>>0x8={:#x}", 6: "0x34>>0x8={:#x}"}

_ETHERNET = {4: "0x0>>0x16&0x3c@0x0&0xffff=0x6558", 6: "0x28&0xffff=0x6558"}
"""GRE's protocol type, 16 bits at offset 2 of its header: inner Ethernet."""

FRAMES: tuple[Frame, ...] = (
    *frames("SOURCES", table="raw", hooks=("PREROUTING",)),
    *frames("INPUT", table="mangle", hooks=("INPUT",), head=(f"{VXLAN} -j {PREFIX}VXLAN",)),
    *frames("VXLAN", table="mangle"),
    *frames("VNIS", table="mangle"),
)


def _grepeers(version: int) -> Ipset:
    return Ipset(name=f"{PREFIX}grepeers{version}", kind=f"hash:ip family {IPSET_FAMILIES[version]}")


IPSETS = tuple(map(_grepeers, IPSET_FAMILIES))


def grepeers4(element: str) -> Iterator[Piece]:
    """Yield the member for a peer that is reached by GRE over IPv4."""
    yield Member(ipset=_grepeers(4), text=element)


def grepeers6(element: str) -> Iterator[Piece]:
    """Yield the member for a peer that is reached by GRE over IPv6."""
    yield Member(ipset=_grepeers(6), text=element)


def anykey(element: str) -> Iterator[Piece]:
    """Yield the drop of GRE packets with inner Ethernet that come from no peer; ``element`` can only be ``gre``."""
    for version, family in zip(IPSET_FAMILIES, BOTH, strict=True):
        match = f'-m u32 --u32 "{GRE[family]}&&{_ETHERNET[version]}"'
        stranger = f"{match} -m set ! --match-set {_grepeers(version).name} src -j DROP"
        yield from rules("INPUT", stranger, table="mangle", families=(family,))


def _peers(version: int, vni: str) -> Ipset:
    return Ipset(name=f"{PREFIX}peers{version}-{vni}", kind=f"hash:ip family {IPSET_FAMILIES[version]}")


def vnis(element: str) -> Iterator[Piece]:
    """Yield the drops of packets with this number that a container sends out, or that come from no peer."""
    for version, family in zip(IPSET_FAMILIES, BOTH, strict=True):
        peers = _peers(version, element)
        number = f'-m u32 --u32 "{_NUMBER[version].format(int(element))}"'
        yield peers
        yield from rules("VNIS", f"{number} -j DROP", table="mangle", families=(family,))
        stranger = f"{number} -m set ! --match-set {peers.name} src -j DROP"
        yield from rules("VXLAN", stranger, table="mangle", families=(family,))


def peers4(element: str) -> Iterator[Piece]:
    """Yield the member for a peer with an IPv4 address."""
    address, vni = parts(element)
    yield Member(ipset=_peers(4, vni), text=address)


def peers6(element: str) -> Iterator[Piece]:
    """Yield the member for a peer with an IPv6 address."""
    address, vni = parts(element)
    yield Member(ipset=_peers(6, vni), text=address)
