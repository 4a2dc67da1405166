"""Tunnels (``firewall.tunnel``): an ipset of peers for each network number that is ours.

The number is read by ``u32``: 24 bits at offset 12 of the UDP header, behind an IPv4 header of any length (its length
field counts words) or an IPv6 header of 40 bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

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
from netagent.firewall.tunnel import as_behind

_NUMBER = {4: "0x0>>0x16&0x3c@0xc>>0x8={:#x}", 6: "0x34>>0x8={:#x}"}

_INNER = {4: "0x0>>0x16&0x3c@{:#x}", 6: "{:#x}"}
"""Four octets at an offset from the transport header, from the outer packet's start for IPv6."""
_HEADER = {4: 0, 6: 40}
_VXLAN, _GRE = 16, 8
"""Octets before the inner Ethernet header."""
_TYPES = {4: 0x800, 6: 0x86DD}
_SOURCES = {4: 14 + 12, 6: 14 + 8}
_KEY = {4: "0x0>>0x16&0x3c@0x4={:#x}", 6: "0x2c={:#x}"}
_PLAIN = {4: "0x0>>0x16&0x3c@0x0>>0x10=0x2000", 6: "0x28>>0x10=0x2000"}
"""GRE with a key and no checksum or sequence number."""

_ETHERNET = {4: "0x0>>0x16&0x3c@0x0&0xffff=0x6558", 6: "0x28&0xffff=0x6558"}
"""GRE's protocol type, 16 bits at offset 2 of its header: inner Ethernet."""

FRAMES: tuple[Frame, ...] = (
    *frames("SOURCES", table="raw", hooks=("PREROUTING",)),
    *frames("INPUT", table="mangle", hooks=("INPUT",), head=(f"{VXLAN} -j {PREFIX}VXLAN",)),
    *frames("VXLAN", table="mangle"),
    *frames("VNIS", table="mangle"),
    *frames("BEHIND", table="mangle", tail=("-j DROP",)),
    *frames("GRE-BEHIND", table="mangle", tail=("-j DROP",)),
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
        yield from rules("INPUT", f"{match} -g {PREFIX}GRE-BEHIND", table="mangle", families=(family,))


def _peers(version: int, vni: str) -> Ipset:
    return Ipset(name=f"{PREFIX}peers{version}-{vni}", kind=f"hash:ip family {IPSET_FAMILIES[version]}")


def vnis(element: str) -> Iterator[Piece]:
    """Yield the drops of packets with this number that a container sends out, or that come from no peer.

    The goto may stand before the drop of strangers: no rule of theirs is in that chain.
    """
    for version, family in zip(IPSET_FAMILIES, BOTH, strict=True):
        peers = _peers(version, element)
        number = f'-m u32 --u32 "{_NUMBER[version].format(int(element))}"'
        yield peers
        yield from rules("VNIS", f"{number} -j DROP", table="mangle", families=(family,))
        stranger = f"{number} -m set ! --match-set {peers.name} src -j DROP"
        yield from rules("VXLAN", stranger, table="mangle", families=(family,))
        yield from rules("VXLAN", f"{number} -g {PREFIX}BEHIND", table="mangle", families=(family,))


def peers4(element: str) -> Iterator[Piece]:
    """Yield the member for a peer with an IPv4 address."""
    address, vni = parts(element)
    yield Member(ipset=_peers(4, vni), text=address)


def peers6(element: str) -> Iterator[Piece]:
    """Yield the member for a peer with an IPv6 address."""
    address, vni = parts(element)
    yield Member(ipset=_peers(6, vni), text=address)


def _sources(chain: str, base: int, heads: Iterable[str], outer: int, inner: int) -> Callable[[str], Iterator[Piece]]:
    """Return what makes of ``peer . number . first-last`` the rule that lets these inner sources of the peer pass."""

    def translate(element: str) -> Iterator[Piece]:
        peer, number, span = parts(element)
        first, _, last = span.partition("-")
        start = _HEADER[outer] + base
        kind = f"{_INNER[outer].format(start + 12)}>>0x10={_TYPES[inner]:#x}"
        tests = [*(head.format(int(number)) for head in heads), kind]
        tests.extend(_words(outer, start + _SOURCES[inner], inner, int(first, 0), int(last or first, 0)))
        length = 32 if outer == 4 else 128
        text = f'-s {peer}/{length} -m u32 --u32 "{"&&".join(tests)}" -j RETURN'
        yield from rules(chain, text, table="mangle", families=("ip" if outer == 4 else "ip6",))

    return translate


def _words(outer: int, offset: int, inner: int, first: int, last: int) -> Iterator[str]:
    """Yield the tests of an address's 32-bit words, for a prefix that spans ``first`` to ``last``."""
    bits = 32 if inner == 4 else 128
    mask = ~(first ^ last) & ((1 << bits) - 1)
    for number in range(bits // 32):
        shift = bits - 32 * (number + 1)
        part, value = mask >> shift & 0xFFFFFFFF, first >> shift & 0xFFFFFFFF
        if part:
            masked = "" if part == 0xFFFFFFFF else f"&{part:#x}"
            yield f"{_INNER[outer].format(offset + 4 * number)}{masked}={value:#x}"


_BEHIND = {
    **{
        f"behind{outer}{inner}": _sources("BEHIND", _VXLAN, (_NUMBER[outer],), outer, inner)
        for outer in IPSET_FAMILIES
        for inner in IPSET_FAMILIES
    },
    **{
        f"grebehind{outer}{inner}": _sources("GRE-BEHIND", _GRE, (_PLAIN[outer], _KEY[outer]), outer, inner)
        for outer in IPSET_FAMILIES
        for inner in IPSET_FAMILIES
    },
}


_BLOCKS = tuple(name.replace("behind", "blocks") for name in _BEHIND)


def _blocks(set_name: str, behind: Callable[[str], Iterator[Piece]]) -> Callable[[str], Iterator[Piece]]:
    """Return the translation of a set ``blocks``: that of ``behind`` beside it."""
    return lambda element: behind(as_behind(set_name, element))


BEHIND: Mapping[str, Callable[[str], Iterator[Piece]]] = MappingProxyType(
    _BEHIND | {name: _blocks(name, behind) for name, behind in zip(_BLOCKS, _BEHIND.values(), strict=True)}
)
"""Sets of what lies behind each peer -> their translation: a rule each, as no ipset looks into a packet's payload."""
