"""Published ports (``firewall.publish``): a rule for each mapping or port, looked through one after the other.

That is what iptables has: a new connection to one of 10,000 ports waits for as many comparisons. Sources are looked at
in the table mangle, before any translation: the table nat takes no drops.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

from netagent.firewall.iptables.pieces import BOTH, PREFIX, Frame, Piece, frames, parts, rules

_FIRST = "-m conntrack --ctstate NEW -m addrtype --dst-type LOCAL"
_IGNORED = {"ip": (), "ip6": ("-d ::1/128 -j RETURN",)}
"""The kernel cannot translate to or from ::1."""
_VERSIONS = {4: "ip", 6: "ip6"}

FRAMES: tuple[Frame, ...] = (
    *frames("GUARD", table="raw", hooks=("PREROUTING",), families=("ip",), head=("-d 127.0.0.0/8 ! -i lo -j DROP",)),
    *(
        frame
        for family in BOTH
        for frame in (
            *frames(
                "LIMITS",
                table="mangle",
                hooks=("PREROUTING", "OUTPUT"),
                families=(family,),
                head=(*_IGNORED[family], f"{_FIRST} -j {PREFIX}LIMITED"),
            ),
            *frames(
                "DNAT",
                table="nat",
                hooks=("PREROUTING", "OUTPUT"),
                families=(family,),
                head=(*_IGNORED[family], f"-m addrtype --dst-type LOCAL -j {PREFIX}PUBLISH"),
            ),
        )
    ),
    *frames("LIMITED", table="mangle"),
    *frames("ALLOWED", table="mangle", tail=("-j DROP",)),
    *frames("PUBLISH", table="nat", head=tuple(f"-j {PREFIX}{part}" for part in ("PORTS-AT", "PORTS"))),
    *frames("PORTS-AT", table="nat"),
    *frames("PORTS", table="nat"),
)


def _publish(version: int, element: str) -> Iterator[Piece]:
    """Yield the translation of a port, or of a range of ports that keep their numbers."""
    *where, protocol, port = parts(element)
    address, *target_port = element.partition(" : ")[2].split(" . ")
    target = f"[{address}]" if version == 6 and target_port else address
    to = ":".join((target, *target_port))
    text = f"{_to(where, version)}{_service(protocol, port)} -j DNAT --to-destination {to}"
    yield from rules("PORTS-AT" if where else "PORTS", text, table="nat", families=(_VERSIONS[version],))


def _limited(version: int, element: str) -> Iterator[Piece]:
    """Yield what sends new connections to a port with sources past those sources."""
    where, protocol, port = parts(element)
    text = f"{_to((where,), version)}{_service(protocol, port)} -j {PREFIX}ALLOWED"
    yield from rules("LIMITED", text, table="mangle", families=(_VERSIONS[version],))


def _allowed(version: int, element: str) -> Iterator[Piece]:
    """Yield what lets one source of such a port in."""
    source, where, protocol, port = parts(element)
    text = f"{_option('-s', source, version)}{_to((where,), version)}{_service(protocol, port)} -j RETURN"
    yield from rules("ALLOWED", text, table="mangle", families=(_VERSIONS[version],))


def _to(where: Iterable[str], version: int) -> str:
    return "".join(_option("-d", address, version) for address in where)


def _option(option: str, prefix: str, version: int) -> str:
    """Return a match on an address or a prefix; nothing for all there are, as the save programs do."""
    full = prefix if "/" in prefix else f"{prefix}/{32 if version == 4 else 128}"
    return "" if full.endswith("/0") else f"{option} {full} "


def _service(protocol: str, port: str) -> str:
    return f"-p {protocol} -m {protocol} --dport {port.replace('-', ':')}"


TRANSLATIONS: Mapping[str, Callable[[str], Iterable[Piece]]] = MappingProxyType(
    {
        f"{name}{version}{at}": partial(function, version)
        for version in _VERSIONS
        for name, function, places in (
            ("publish", _publish, ("", "_at")),
            ("ranges", _publish, ("", "_at")),
            ("limited", _limited, ("",)),
            ("allowed", _allowed, ("",)),
        )
        for at in places
    }
)
