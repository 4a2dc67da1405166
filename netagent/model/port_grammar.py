"""How people write published ports: ``-p`` and ``--expose``.

``[HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|udp|sctp][@SOURCE[,SOURCE…]]``: up to the ``@`` it is Docker's, with its
error texts (docker/go-connections, nat/nat.go and nat/parse.go). Without a host port, or with 0, any free one is
chosen when the endpoint is attached; of a host range for a single container port any free one in it. A source is an
address or a prefix; nobody else reaches the port.
"""

import ipaddress
from collections.abc import Iterable

from netagent.errors import InvalidRequest
from netagent.model.address import Prefix, host_prefix, parse_address, parse_prefix
from netagent.model.port import LAST_PORT, PROTOCOLS, PortMapping, join

SOURCES_LIMIT = 256
"""Source ranges of one port."""


def parse_publish(text: str) -> tuple[PortMapping, ...]:
    """Return the mappings that one ``-p`` argument asks for."""
    _refuse_unprintable(text)
    spec, at, allowed = text.partition("@")
    sources = _parse_sources(allowed) if at else ()
    body, slash, protocol = spec.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidRequest(f"invalid proto: {protocol}", hint="tcp, udp or sctp")
    host_text, host_ports, ports = _split_host(body)
    address = parse_address(host_text) if host_text else None
    if not ports:
        raise InvalidRequest(f"no port specified: {spec}<empty>", hint="[[IP:]HOSTPORT:]PORT[/PROTO]")
    first, last = _parse_range(ports, what="containerPort")
    count = last - first + 1
    if not host_ports or host_ports == "0":
        return tuple(
            PortMapping(protocol=protocol, container_port=port, host_port=0, host_address=address, sources=sources)
            for port in range(first, last + 1)
        )
    host_first, host_last = _parse_range(host_ports, what="hostPort")
    host_count = host_last - host_first + 1
    if count not in (1, host_count):
        raise InvalidRequest(
            f"invalid ranges specified for container and host Ports: {ports} and {host_ports}",
            hint="both ranges need the same length, or the container's side is one port",
        )
    mapping = PortMapping(
        protocol=protocol,
        container_port=first,
        host_port=host_first,
        count=count,
        choices=host_count if count == 1 else 1,
        host_address=address,
        sources=sources,
    )
    return (mapping,)


def parse_published(texts: Iterable[str]) -> tuple[PortMapping, ...]:
    """Return all mappings of several ``-p`` arguments; two that collide are refused."""
    mappings: dict[PortMapping, None] = {}
    by_port: dict[tuple[str, int], list[PortMapping]] = {}
    for text in texts:
        for mapping in parse_publish(text):
            if mapping in mappings:
                continue
            mappings[mapping] = None
            if mapping.is_wish:
                continue
            for port in mapping.host_ports:
                rivals = by_port.setdefault((mapping.protocol, port), [])
                clash = next((m for m in rivals if m.collides(mapping)), None)
                if clash is not None:
                    raise InvalidRequest(
                        f"port {port}/{mapping.protocol} is published twice: {clash} and {mapping}",
                        hint="leave one of them out",
                    )
                rivals.append(mapping)
    return join(mappings)


def parse_exposed(texts: Iterable[str]) -> tuple[PortMapping, ...]:
    """Return the ports of several ``--expose`` arguments, ``PORT[-END][/PROTO]``, as mappings to any free host port."""
    found: dict[PortMapping, None] = {}
    for text in texts:
        _refuse_unprintable(text)
        body, slash, protocol = text.partition("/")
        protocol = protocol.lower() if slash else "tcp"
        if protocol not in PROTOCOLS:
            raise InvalidRequest(f"invalid proto: {protocol}", hint="tcp, udp or sctp")
        if ":" in body:
            raise InvalidRequest(f"invalid port format for --expose: {text}", hint="PORT[-END][/PROTO]; -p publishes")
        first, last = _parse_range(body, what="range format for --expose")
        found |= {
            PortMapping(protocol=protocol, container_port=port, host_port=0): None for port in range(first, last + 1)
        }
    return tuple(found)


def parse_sources(texts: Iterable[str]) -> tuple[Prefix, ...]:
    """Return the source ranges that ``texts`` spell, without those that others contain."""
    found = [_parse_source(text) for text in texts]
    if not found:
        return ()
    four = [prefix for prefix in found if isinstance(prefix, ipaddress.IPv4Network)]
    six = [prefix for prefix in found if isinstance(prefix, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))


def _refuse_unprintable(text: str) -> None:
    """Refuse what would break the one line of an error that repeats it."""
    if not text.isprintable():
        raise InvalidRequest(f"invalid port: {text!r}", hint="[[IP:]HOSTPORT:]PORT[/PROTO]")


def _parse_sources(text: str) -> tuple[Prefix, ...]:
    texts = text.split(",")
    if len(texts) > SOURCES_LIMIT:
        raise InvalidRequest(f"a port has {len(texts)} source ranges", hint=f"give at most {SOURCES_LIMIT}")
    return parse_sources(texts)


def _parse_source(text: str) -> Prefix:
    if not text:
        raise InvalidRequest("no source range after @ or a comma", hint="for example 5432:5432@10.0.0.0/8")
    if "/" in text:
        return parse_prefix(text, what="source range")
    return host_prefix(parse_address(text, what="source range"))


def _parse_range(text: str, *, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    # As many digits as the greatest port has: int() refuses thousands of them with a ValueError of its own.
    if not all(part.isascii() and part.isdigit() and len(part) <= 5 for part in ((first, last) if dash else (first,))):
        raise InvalidRequest(f"invalid {what}: {text}", hint="ports are 1 to 65535, ranges ascend")
    start, end = int(first), int(last or first)
    if not 1 <= start <= end <= LAST_PORT:
        raise InvalidRequest(f"invalid {what}: {text}", hint="ports are 1 to 65535, ranges ascend")
    return start, end


def _split_host(text: str) -> tuple[str, str, str]:
    """Split ``[HOSTIP:][HOSTPORT:]PORT`` into its three parts, the address without brackets."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":") or ":" not in address:
            raise InvalidRequest(f"invalid IP address: {text}", hint="for example [2001:db8::1]:8080:80")
        host_port, _, port = rest[1:].rpartition(":")
        return address, host_port, port
    rest, _, port = text.rpartition(":")
    address, _, host_port = rest.rpartition(":")
    return address, host_port, port
