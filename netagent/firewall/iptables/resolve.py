"""Names for Docker's containers (``firewall.resolve``): two rules for each of their addresses."""

from collections.abc import Iterator

from netagent.firewall.iptables.pieces import BOTH, PREFIX, Frame, Piece, frames, rules

_LENGTHS = {"ip": 32, "ip6": 128}

FRAMES: tuple[Frame, ...] = tuple(
    frame
    for family, version in zip(BOTH, (4, 6), strict=True)
    for frame in frames(
        "RESOLVE",
        table="nat",
        hooks=("PREROUTING",),
        families=(family,),
        head=(f"-m set --match-set {PREFIX}masquerade{version} dst -j RETURN",),
    )
)


def resolve4(element: str) -> Iterator[Piece]:
    """Yield the rules that lead the queries of an IPv4 address to a gateway."""
    yield from _resolve("ip", element)


def resolve6(element: str) -> Iterator[Piece]:
    """Yield the rules that lead the queries of an IPv6 address to a gateway."""
    yield from _resolve("ip6", element)


def _resolve(family: str, element: str) -> Iterator[Piece]:
    source, _, gateway = element.partition(" : ")
    for protocol in ("udp", "tcp"):
        match = f"-s {source}/{_LENGTHS[family]} -p {protocol} -m {protocol} --dport 53"
        yield from rules("RESOLVE", f"{match} -j DNAT --to-destination {gateway}", table="nat", families=(family,))
