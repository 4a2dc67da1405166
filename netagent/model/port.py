"""Published ports: the ``-p`` grammar and the mappings it makes.

``[HOSTIP:][HOSTPORT[-END]]:PORT[-END][/tcp|udp|sctp]`` as Docker's, with its error texts (docker/go-connections,
nat/nat.go and nat/parse.go). A host port of 0 stands for "any free one", chosen when the endpoint is attached.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from netagent.errors import InvalidRequest
from netagent.model.address import Address, parse_address

PROTOCOLS = ("tcp", "udp", "sctp")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PortMapping:
    """One host port that leads to one container port.

    ``host_address`` None means every address of the host, 0.0.0.0 every IPv4 and :: every IPv6 address.
    """

    protocol: str
    container_port: int
    host_port: int
    host_address: Address | None = None

    def __str__(self) -> str:
        where = "0.0.0.0" if self.host_address is None else str(self.host_address)  # noqa: S104
        return f"{where}:{self.host_port}->{self.container_port}/{self.protocol}"

    def collides(self, other: "PortMapping") -> bool:
        """Tell whether both cannot be published on one host: same port and protocol on overlapping addresses."""
        return (
            self.protocol == other.protocol
            and self.host_port == other.host_port
            and _overlap(self.host_address, other.host_address)
        )

    @property
    def key(self) -> str:
        """The container's side as Docker writes it, ``80/tcp``."""
        return f"{self.container_port}/{self.protocol}"


def _overlap(one: Address | None, other: Address | None) -> bool:
    if one is None or other is None:
        return True
    return one.version == other.version and (one == other or one.is_unspecified or other.is_unspecified)


def _parse_range(text: str, *, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    try:
        if not all(part.isascii() and part.isdigit() for part in ((first, last) if dash else (first,))):
            raise ValueError(text)
        start, end = int(first), int(last or first)
    except ValueError:
        raise InvalidRequest(f"invalid {what}: {text}") from None
    if not 1 <= start <= end <= 65535:
        raise InvalidRequest(f"invalid {what}: {text}", hint="ports are 1 to 65535, ranges ascend")
    return start, end


def _split_host(text: str) -> tuple[str, str, str]:
    """Split ``[HOSTIP:][HOSTPORT:]PORT`` into its three parts, the address without brackets."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise InvalidRequest(f"invalid IP address: {text}")
        host_port, _, port = rest[1:].rpartition(":")
        return address, host_port, port
    rest, _, port = text.rpartition(":")
    address, _, host_port = rest.rpartition(":")
    return address, host_port, port


def parse_publish(text: str) -> tuple[PortMapping, ...]:
    """Return the mappings that one ``-p`` argument asks for."""
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidRequest(f"invalid proto: {protocol}", hint="tcp, udp or sctp")
    host_text, host_ports, ports = _split_host(body)
    if not ports:
        raise InvalidRequest(f"no port specified: {text}<empty>")
    address = parse_address(host_text) if host_text else None
    start, end = _parse_range(ports, what="containerPort")
    if not host_ports or host_ports == "0":
        return tuple(
            PortMapping(protocol=protocol, container_port=port, host_port=0, host_address=address)
            for port in range(start, end + 1)
        )
    host_start, host_end = _parse_range(host_ports, what="hostPort")
    if host_end - host_start != end - start:
        raise InvalidRequest(
            f"invalid ranges specified for container and host Ports: {ports} and {host_ports}",
            hint="both ranges need the same length",
        )
    return tuple(
        PortMapping(protocol=protocol, container_port=port, host_port=host_start + port - start, host_address=address)
        for port in range(start, end + 1)
    )


def parse_published(texts: tuple[str, ...]) -> tuple[PortMapping, ...]:
    """Return all mappings of several ``-p`` arguments; two that collide are refused."""
    mappings: dict[PortMapping, None] = {}
    by_port: dict[tuple[str, int], list[PortMapping]] = {}
    for text in texts:
        for mapping in parse_publish(text):
            if mapping in mappings:
                continue
            rivals = by_port.setdefault((mapping.protocol, mapping.host_port), [])
            clash = next((m for m in rivals if m.host_port and m.collides(mapping)), None)
            if clash is not None:
                raise InvalidRequest(
                    f"port {mapping.host_port}/{mapping.protocol} is published twice: {clash} and {mapping}"
                )
            mappings[mapping] = None
            rivals.append(mapping)
    return tuple(mappings)


def parse_exposed(texts: Iterable[str]) -> tuple[PortMapping, ...]:
    """Return the ports of several ``--expose`` arguments, ``PORT[-END][/PROTO]``, as mappings to any free host port."""
    found: dict[PortMapping, None] = {}
    for text in texts:
        body, slash, protocol = text.partition("/")
        protocol = protocol.lower() if slash else "tcp"
        if protocol not in PROTOCOLS:
            raise InvalidRequest(f"invalid proto: {protocol}", hint="tcp, udp or sctp")
        if ":" in body:
            raise InvalidRequest(f"invalid port format for --expose: {text}", hint="PORT[-END][/PROTO]; -p publishes")
        start, end = _parse_range(body, what="range format for --expose")
        found |= {
            PortMapping(protocol=protocol, container_port=port, host_port=0): None for port in range(start, end + 1)
        }
    return tuple(found)
