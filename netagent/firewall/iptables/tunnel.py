"""Tunnels (``firewall.tunnel``): an ipset of peers for each network number that is ours.

The number is read by ``u32``: 24 bits at offset 12 of the UDP header, behind an IPv4 header of any length (its length
field counts words) or an IPv6 header of 40 bytes.
"""

from collections.abc import Iterator

from netagent.firewall.iptables.isolate import VXLAN
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

FRAMES: tuple[Frame, ...] = (
    *frames("SOURCES", table="raw", hooks=("PREROUTING",)),
    *frames("INPUT", table="filter", hooks=("INPUT",), head=(f"{VXLAN} -j {PREFIX}VXLAN",)),
    *frames("VXLAN", table="filter"),
    *frames("VNIS", table="filter"),
)


def _peers(version: int, vni: str) -> Ipset:
    return Ipset(name=f"{PREFIX}peers{version}-{vni}", kind=f"hash:ip family {IPSET_FAMILIES[version]}")


def vnis(element: str) -> Iterator[Piece]:
    """Yield the drops of packets with this number that a container sends out, or that come from no peer."""
    for version, family in zip(IPSET_FAMILIES, BOTH, strict=True):
        peers = _peers(version, element)
        number = f'-m u32 --u32 "{_NUMBER[version].format(int(element))}"'
        yield peers
        yield from rules("VNIS", f"{number} -j DROP", table="filter", families=(family,))
        stranger = f"{number} -m set ! --match-set {peers.name} src -j DROP"
        yield from rules("VXLAN", stranger, table="filter", families=(family,))


def peers4(element: str) -> Iterator[Piece]:
    """Yield the member for a peer with an IPv4 address."""
    address, vni = parts(element)
    yield Member(ipset=_peers(4, vni), text=address)


def peers6(element: str) -> Iterator[Piece]:
    """Yield the member for a peer with an IPv6 address."""
    address, vni = parts(element)
    yield Member(ipset=_peers(6, vni), text=address)
