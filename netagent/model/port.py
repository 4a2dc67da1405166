"""Published ports: which host ports lead to which container ports, for whom.

A run of consecutive ports is one mapping, so that publishing a thousand costs what publishing one does. How people
write mappings is ``model/port_grammar.py``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from netagent.errors import InvalidRequest
from netagent.model.address import Address, Prefix

PROTOCOLS = ("tcp", "udp", "sctp")
LAST_PORT = 65535


class PortSlot(NamedTuple):
    """One port of one protocol on one address of this host, or on all of them (None)."""

    protocol: str
    port: int
    address: Address | None

    def __str__(self) -> str:
        return f"{self.where}/{self.protocol}"

    @property
    def where(self) -> str:
        """Address and port, ``0.0.0.0:80`` for all addresses."""
        address = "0.0.0.0" if self.address is None else str(self.address)  # noqa: S104 - it is only printed
        return f"{f'[{address}]' if ':' in address else address}:{self.port}"


class AutomaticPorts(NamedTuple):
    """Where host ports that nobody named come from: ``first`` to ``last`` but for ``reserved`` (ip-sysctl.rst)."""

    first: int
    last: int
    reserved: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """``count`` consecutive host ports that lead to as many consecutive container ports, the first of each given.

    ``host_address`` None means every address of the host, 0.0.0.0 every IPv4 and :: every IPv6 address. ``sources``
    are the only ones that are let in; anybody if empty. Before the endpoint is attached a mapping may be a wish:
    ``host_port`` 0 stands for any free port, ``choices`` above 1 for any free one of as many from ``host_port`` on.
    """

    protocol: str
    container_port: int
    host_port: int
    count: int = 1
    choices: int = 1
    host_address: Address | None = None
    sources: tuple[Prefix, ...] = ()

    def __post_init__(self) -> None:
        for first, length in ((self.container_port, self.count), (self.host_port, max(self.count, self.choices))):
            if length < 1 or first + length - 1 > LAST_PORT:
                raise InvalidRequest(f"invalid port range: {length} ports from {first} on", hint="the last is 65535")

    def __str__(self) -> str:
        where = "0.0.0.0" if self.host_address is None else str(self.host_address)  # noqa: S104
        return f"{where}:{_span(self.host_port, max(self.count, self.choices))}->{self.key}{self.sources_text}"

    @property
    def key(self) -> str:
        """The container's side as Docker writes it, ``80/tcp``."""
        return f"{_span(self.container_port, self.count)}/{self.protocol}"

    @property
    def sources_text(self) -> str:
        """The end of a ``-p`` text that says who is let in: ``@10.0.0.0/8,…``, empty for anybody."""
        return f"@{','.join(map(str, self.sources))}" if self.sources else ""

    @property
    def is_wish(self) -> bool:
        """Whether the host port is still to be chosen."""
        return self.host_port == 0 or self.choices > 1

    @property
    def host_ports(self) -> range:
        """The host ports."""
        return range(self.host_port, self.host_port + self.count)

    @property
    def container_ports(self) -> range:
        """The container ports, in the order of the host ports."""
        return range(self.container_port, self.container_port + self.count)

    @property
    def slots(self) -> Iterator[PortSlot]:
        """The host ports one by one."""
        return (PortSlot(self.protocol, port, self.host_address) for port in self.host_ports)

    def collides(self, other: "PortMapping") -> bool:
        """Tell whether both cannot be published on one host: a port and protocol shared on overlapping addresses."""
        return (
            self.protocol == other.protocol
            and self.host_port < other.host_port + other.count
            and other.host_port < self.host_port + self.count
            and overlap(self.host_address, other.host_address)
        )

    def part(self, first: int, count: int) -> "PortMapping":
        """Return ``count`` of the ports, from the ``first`` one (counted from 0) on."""
        return replace(self, container_port=self.container_port + first, host_port=self.host_port + first, count=count)

    def matching(self, pattern: "PortMapping") -> range:
        """Return which of the ports, counted from 0, ``pattern`` means; what it leaves out matches anything."""
        nothing = range(0)
        if self.protocol != pattern.protocol or pattern.host_address not in (None, self.host_address):
            return nothing
        if pattern.sources and pattern.sources != self.sources:
            return nothing
        first = max(0, pattern.container_port - self.container_port)
        last = min(self.count, pattern.container_port + pattern.count - self.container_port)
        if pattern.host_port and pattern.choices > 1:
            host = self.host_port + first
            return range(first, last) if 0 <= host - pattern.host_port < pattern.choices else nothing
        shift = self.host_port - self.container_port
        if pattern.host_port and pattern.host_port - pattern.container_port != shift:
            return nothing
        return range(first, last) if first < last else nothing

    def without(self, gone: range) -> tuple["PortMapping", ...]:
        """Return what is left when some of the ports, counted from 0, are taken out."""
        if not gone:
            return (self,)
        pieces = ((0, gone.start), (gone.stop, self.count - gone.stop))
        return tuple(self.part(first, count) for first, count in pieces if count > 0)


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"


def overlap(one: Address | None, other: Address | None) -> bool:
    """Tell whether two host addresses of mappings share one; None, 0.0.0.0 and :: stand for many."""
    if one is None or other is None:
        return True
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


def join(mappings: Iterable[PortMapping]) -> tuple[PortMapping, ...]:
    """Return the same ports in as few mappings as neighbours allow."""
    joined: list[PortMapping] = []
    for mapping in mappings:
        if joined and _continues(joined[-1], mapping):
            joined[-1] = replace(joined[-1], count=joined[-1].count + mapping.count)
        else:
            joined.append(mapping)
    return tuple(joined)


def _continues(one: PortMapping, other: PortMapping) -> bool:
    return (
        not one.is_wish
        and not other.is_wish
        and other.host_port == one.host_port + one.count
        and other.container_port == one.container_port + one.count
        and (other.protocol, other.host_address, other.sources) == (one.protocol, one.host_address, one.sources)
    )
