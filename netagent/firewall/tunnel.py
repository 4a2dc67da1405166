"""Tunnels: VXLAN packets of our networks are taken from known peers alone (CVE-2023-28840 was the lack of it).

The network number in a packet (RFC 7348, 5) says whether it is for us: other programs may have VXLAN devices on the
same port. While it is still packed, the inner source is seen beside the outer one: it must lie behind that very peer.
Once it is out of the tunnel, here for packets to the host itself and in ``isolate`` for those to containers, its source
must be routed back through the same tunnel, whatever device the packet was made for.

Most of what lies behind a peer is blocks of the usual length: they are in ``blocks``, looked up by their leading octets
in a hash, and everything else in ``behind``, by intervals, which takes three times as long.

GRE packets with inner Ethernet are taken from known peers alone where the kernel's device is up (``anykey``): it takes
every key, and whatever no other device claims. Open vSwitch looks at key, peer and inner source itself.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network

from netagent.firewall import counting, isolate, publish, routed
from netagent.model.address import Address, Prefix
from netagent.model.host import Host
from netagent.plan.desired import Chain, ElementSet, Gretap, State, Vxlan

_FAMILIES = {4: ("ip", 0x0800), 6: ("ip6", 0x86DD)}
_VXLAN, _GRE = 8 * (8 + 8), 8 * (4 + 4)
"""Bits before the inner Ethernet header, from the start of the transport header: UDP and VXLAN; GRE with a key."""
_NUMBERS = {_VXLAN: "@th,96,24", _GRE: "@th,32,32"}
_PADDED = {_VXLAN: "@th,96,32", _GRE: "@th,32,32"}
_TYPE = 8 * 12
_SOURCES = {4: (8 * (14 + 12), 32), 6: (8 * (14 + 8), 128)}
"""Offset and length, in bits from the inner Ethernet header, of an inner packet's source."""


_PARTS = {4: (16, 8), 6: (80,)}
"""The bits of such a prefix in the parts by which it is loaded: two or one octets cost a quarter of three."""
_RESERVED = {_VXLAN: 8, _GRE: 0}
"""Bits behind the network number that are loaded with it, for the same reason; zero, or the kernel drops the packet."""


def _leading(base: int, version: int) -> str:
    offset, texts = base + _SOURCES[version][0], []
    for length in _PARTS[version]:
        texts.append(f"@th,{offset},{length}")
        offset += length
    return " . ".join(texts)


def _inner(base: int, version: int) -> str:
    offset, length = _SOURCES[version]
    return f"@th,{base + offset},{length}"


def _sets(name: str, base: int) -> Iterator[ElementSet]:
    for outer, (header, _) in _FAMILIES.items():
        for inner in _FAMILIES:
            key = f"typeof {header} saddr . {_NUMBERS[base]} . {_inner(base, inner)}"
            yield ElementSet(name=f"{name}behind{outer}{inner}", key=key, flags=("interval",))
            key = f"typeof {header} saddr . {_PADDED[base]} . {_leading(base, inner)}"
            yield ElementSet(name=f"{name}blocks{outer}{inner}", key=key)


def _accepts(name: str, base: int, peers: str, known: str) -> Iterator[str]:
    """Yield the rules for packets of a known peer: ``known``, looked up in ``peers``, and IP from behind that peer."""
    for outer, (header, _) in _FAMILIES.items():
        for inner, (_, kind) in _FAMILIES.items():
            sender = f"{header} saddr . {_PADDED[base]} . {_leading(base, inner)}"
            yield f"@th,{base + _TYPE},16 {kind:#x} {sender} @{name}blocks{outer}{inner} accept"
    for outer, (header, _) in _FAMILIES.items():
        for inner, (_, kind) in _FAMILIES.items():
            sender = f"{header} saddr . {_NUMBERS[base]} . {_inner(base, inner)}"
            peer = f"{header} saddr{known} @{peers}{outer}"
            yield f"@th,{base + _TYPE},16 {kind:#x} {peer} {sender} @{name}behind{outer}{inner} accept"


SETS = (
    ElementSet(name="vnis", key="typeof @th,96,24"),
    ElementSet(name="peers4", key="typeof ip saddr . @th,96,24"),
    ElementSet(name="peers6", key="typeof ip6 saddr . @th,96,24"),
    ElementSet(name="grepeers4", key="ipv4_addr"),
    ElementSet(name="grepeers6", key="ipv6_addr"),
    ElementSet(name="anykey", key="inet_proto"),
    *_sets("", _VXLAN),
    *_sets("gre", _GRE),
)

CHAINS = (
    Chain(
        name="vxlan",
        rules=(
            *_accepts("", _VXLAN, "peers", f" . {_NUMBERS[_VXLAN]}"),
            "@th,96,24 @vnis counter drop",
        ),
    ),
    Chain(
        name="gre",
        rules=(
            # A key and no checksum or sequence number: what both forms send, and what the offsets below count on.
            "@th,0,16 != 0x2000 counter drop",
            *_accepts("gre", _GRE, "grepeers", ""),
            "counter drop",
        ),
    ),
    Chain(
        name="input",
        hook="type filter hook input priority filter; policy accept;",
        rules=(
            "udp dport 4789 jump vxlan",
            "meta l4proto gre meta l4proto @anykey @th,16,16 0x6558 goto gre",
            counting.COUNT,
            publish.FROM_LOOPBACK,
            publish.NOT_ASKED_FOR,
            *isolate.FROM_TUNNELS,
            *routed.STRANGERS,
        ),
    ),
)


def device_elements(state: State) -> dict[str, frozenset[str]]:
    """Return the elements for the tunnel devices in a driver's ``state``, whatever peers there are."""
    kinds = [link.kind for link in state.links.values()]
    return {
        "vnis": frozenset(str(kind.vni) for kind in kinds if isinstance(kind, Vxlan)),
        "anykey": frozenset({"gre"} if any(isinstance(kind, Gretap) for kind in kinds) else ()),
    }


def peer_elements(
    state: State, key: int | None = None, behind: Iterable[tuple[Host, Prefix]] = ()
) -> dict[str, frozenset[str]]:
    """Return the elements for the peers that a driver's ``state`` leads to, by devices and GRE with this ``key``.

    ``behind`` pairs every peer with each prefix that lies behind it; no two of the prefixes overlap.
    """
    numbers = {name: link.kind.vni for name, link in state.links.items() if isinstance(link.kind, Vxlan)}
    peers = {(e.destination, numbers[e.device]) for e in state.fdb if e.device in numbers}
    ends = {e.destination for e in state.fdb if e.device not in numbers}
    ends |= {route.encap.destination for route in state.routes if route.encap is not None}
    found: dict[str, set[str]] = {f"peers{v}": {f"{p} . {vni}" for p, vni in peers if p.version == v} for v in (4, 6)}
    found |= {f"grepeers{v}": {str(end) for end in ends if end.version == v} for v in (4, 6)}
    hosts = tuple(behind)
    for base, version, number in _tunnels(state, key):
        for host, prefix in hosts:
            if (end := host.underlay_for(version)) is not None:
                # Of one that is reached past the tunnel ``peers`` knows nothing, and only ``behind`` asks there.
                is_peer = end in ends if base == _GRE else (end, number) in peers
                set_name, element = _source(base, end, number, prefix, is_peer=is_peer)
                found.setdefault(set_name, set()).add(element)
    return {name: frozenset(group) for name, group in found.items()}


def _tunnels(state: State, key: int | None) -> Iterator[tuple[int, int, int]]:
    """Yield the offset, the underlay's IP version and the number of each way that packets may come out of a tunnel."""
    for link in state.links.values():
        if isinstance(link.kind, Vxlan):
            yield _VXLAN, link.kind.local.version, link.kind.vni
        elif isinstance(link.kind, Gretap) and key is not None:
            yield _GRE, link.kind.version, key


def _source(base: int, end: Address, number: int, prefix: Prefix, *, is_peer: bool) -> tuple[str, str]:
    """Return the set and the element for a prefix behind a peer."""
    kind, families = {_VXLAN: "", _GRE: "gre"}[base], f"{end.version}{prefix.version}"
    usual = routed.USUAL[prefix.version]
    if not is_peer or prefix.prefixlen != usual:
        return f"{kind}behind{families}", f"{end} . {number} . {_range(prefix)}"
    left, leading = usual, int(prefix[0]) >> (prefix.max_prefixlen - usual)
    texts = [str(end), str(number << _RESERVED[base])]
    for length in _PARTS[prefix.version]:
        left -= length
        value = leading >> left & ((1 << length) - 1)
        texts.append(format(value, "d" if length <= 64 else "#x"))
    return f"{kind}blocks{families}", " . ".join(texts)


def as_behind(set_name: str, element: str) -> str:
    """Return what an element of one of the sets ``blocks`` would be in the one of ``behind`` beside it."""
    end, number, *leading = element.split(" . ")
    base, version = (_GRE if set_name.startswith("gre") else _VXLAN), int(set_name[-1])
    value = 0
    for text, length in zip(leading, _PARTS[version], strict=True):
        value = value << length | int(text, 0)
    usual = routed.USUAL[version]
    first = value << _SOURCES[version][1] - usual
    prefix = IPv4Network((first, usual)) if version == 4 else IPv6Network((first, usual))
    return f"{end} . {int(number) >> _RESERVED[base]} . {_range(prefix)}"


def _range(prefix: Prefix) -> str:
    """Return a prefix as the numbers it spans: what is compared by offset has no type but ``integer``."""
    form = "d" if prefix.version == 4 else "#x"
    ends = dict.fromkeys((int(prefix[0]), int(prefix[-1])))
    return "-".join(format(end, form) for end in ends)
