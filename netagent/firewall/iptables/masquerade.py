"""Masquerading (``firewall.masquerade``): what leaves a network takes the host's address."""

from collections.abc import Iterator

from netagent.firewall.iptables.isolate import MARK, TRANSLATED
from netagent.firewall.iptables.pieces import BOTH, IPSET_FAMILIES, PREFIX, Frame, Ipset, Member, Piece, frames, rules


def _subnets(version: int) -> Ipset:
    return Ipset(name=f"{PREFIX}masquerade{version}", kind=f"hash:net family {IPSET_FAMILIES[version]}")


def _postrouting(version: int) -> tuple[Frame, ...]:
    return frames(
        "POSTROUTING",
        table="nat",
        hooks=("POSTROUTING",),
        families=(BOTH[version == 6],),
        head=(
            f"-m mark --mark {MARK} -j MASQUERADE",
            f"{TRANSLATED} -j {PREFIX}HAIRPIN",
            *((f"-s 127.0.0.0/8 -j {PREFIX}LOOPBACK",) if version == 4 else ()),
            f"-m set --match-set {PREFIX}routed{version} dst -j RETURN",
            f"-m set --match-set {_subnets(version).name} src -j {PREFIX}OUTWARD",
        ),
    )


IPSETS = tuple(map(_subnets, IPSET_FAMILIES))

FRAMES: tuple[Frame, ...] = (
    *_postrouting(4),
    *_postrouting(6),
    *frames("HAIRPIN", table="nat"),
    *frames("LOOPBACK", table="nat", families=("ip",)),
    *frames("OUTWARD", table="nat", tail=(f"-j {PREFIX}OUTBOUND", "-j MASQUERADE")),
    *frames("OUTBOUND", table="nat"),
)


def masquerade4(element: str) -> Iterator[Piece]:
    """Yield the member for an IPv4 subnet."""
    yield Member(ipset=_subnets(4), text=element)


def masquerade6(element: str) -> Iterator[Piece]:
    """Yield the member for an IPv6 subnet."""
    yield Member(ipset=_subnets(6), text=element)


def kept4(element: str) -> Iterator[Piece]:
    """Yield the rule by which an IPv4 subnet keeps its address towards a destination."""
    yield from rules("OUTWARD", _between(element, 32), table="nat", families=("ip",))


def kept6(element: str) -> Iterator[Piece]:
    """Yield the rule by which an IPv6 subnet keeps its address towards a destination."""
    yield from rules("OUTWARD", _between(element, 128), table="nat", families=("ip6",))


def _between(element: str, longest: int) -> str:
    source, target = (text if "/" in text else f"{text}/{longest}" for text in element.split(" . "))
    return f"-s {source} -d {target} -j RETURN"


def outbound4(element: str) -> Iterator[Piece]:
    """Yield the rule by which an IPv4 subnet takes a chosen address."""
    subnet, address = element.split(" : ")
    yield from rules("OUTBOUND", f"-s {subnet} -j SNAT --to-source {address}", table="nat", families=("ip",))


def outbound6(element: str) -> Iterator[Piece]:
    """Yield the rule by which an IPv6 subnet takes a chosen address."""
    subnet, address = element.split(" : ")
    yield from rules("OUTBOUND", f"-s {subnet} -j SNAT --to-source {address}", table="nat", families=("ip6",))


def hairpin4(element: str) -> Iterator[Piece]:
    """Yield the rule for a container's IPv4 request to itself through its published port."""
    source, target = element.split(" . ")
    yield from rules("HAIRPIN", f"-s {source}/32 -d {target}/32 -j MASQUERADE", table="nat", families=("ip",))


def hairpin6(element: str) -> Iterator[Piece]:
    """Yield the rule for a container's IPv6 request to itself through its published port."""
    source, target = element.split(" . ")
    yield from rules("HAIRPIN", f"-s {source}/128 -d {target}/128 -j MASQUERADE", table="nat", families=("ip6",))
