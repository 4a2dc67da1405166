"""Links without ICC (``firewall.linked``): a rule for each run of ports, in a chain that drops the rest."""

from collections.abc import Iterator

from netagent.firewall.iptables.pieces import Piece, parts, rules


def linked4(element: str) -> Iterator[Piece]:
    """Yield the rule by which a container reaches a linked neighbour over IPv4."""
    yield from rules("LINKED", _text(element, 32), table="mangle", families=("ip",))


def linked6(element: str) -> Iterator[Piece]:
    """Yield the rule by which a container reaches a linked neighbour over IPv6."""
    yield from rules("LINKED", _text(element, 128), table="mangle", families=("ip6",))


def _text(element: str, length: int) -> str:
    source, target, protocol, ports = parts(element)
    service = f"-p {protocol} -m {protocol} --dport {ports.replace('-', ':')}"
    return f"-s {source}/{length} -d {target}/{length} {service} -j RETURN"
