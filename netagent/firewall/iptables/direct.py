"""Ways by containers' own addresses (``firewall.direct``): rules of a chain that drops what none of them lets in."""

from collections.abc import Iterator

from netagent.firewall.iptables.pieces import PREFIX, Frame, Piece, frames, parts, rules

FRAMES: tuple[Frame, ...] = (
    *frames("DIRECT", table="mangle", tail=("-j DROP",)),
    # What comes from other networks is dropped there.
    *frames("OPEN", table="mangle"),
)


def trusted(element: str) -> Iterator[Piece]:
    """Yield the way from an interface of the host into a network."""
    source, bridge = parts(element)
    yield from rules("DIRECT", f"-i {source} -o {bridge} -j RETURN", table="mangle")


def open4(element: str) -> Iterator[Piece]:
    """Yield the way of anybody outside to an IPv4 subnet."""
    yield from rules("DIRECT", f"-d {element} -g {PREFIX}OPEN", table="mangle", families=("ip",))


def open6(element: str) -> Iterator[Piece]:
    """Yield the way of anybody outside to an IPv6 subnet."""
    yield from rules("DIRECT", f"-d {element} -g {PREFIX}OPEN", table="mangle", families=("ip6",))


def served4(element: str) -> Iterator[Piece]:
    """Yield the way of anybody to a container's ports over IPv4."""
    yield from rules("DIRECT", _port(element, 32), table="mangle", families=("ip",))


def served6(element: str) -> Iterator[Piece]:
    """Yield the way of anybody to a container's ports over IPv6."""
    yield from rules("DIRECT", _port(element, 128), table="mangle", families=("ip6",))


def _port(element: str, length: int) -> str:
    source, address, protocol, ports = parts(element)
    client = "" if source.endswith("/0") else f"-s {source if '/' in source else f'{source}/{length}'} "
    return f"{client}-d {address}/{length} -p {protocol} -m {protocol} --dport {ports.replace('-', ':')} -j RETURN"
