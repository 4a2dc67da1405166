"""Published ports: one map element per mapping and address family, looked up once per connection.

A port on every address is keyed by protocol and port, one on a single address by that address too. A run of ports
that keep their numbers is one element of ``ranges``, whatever its length; where host and container ports differ there
is an element for each. Only packets for an address of this host are looked up, so traffic that merely passes through
is never caught (CVE-2025-67499 was such a case elsewhere).

A mapping with source ranges is in ``limited``, and who is let in is in ``allowed``, by source, host address, protocol
and port. Everybody else's first packet is dropped right there: it reaches neither the container nor a socket here.

127.0.0.1 works through ``route_localnet`` on the bridges; ``guard`` stands before it and lets nothing from any wire
begin a connection to 127.0.0.0/8. What belongs to none is dropped where it would be delivered, and what claims to come
from there, as if it were part of one of the host's own, where it would be forwarded. The kernel cannot translate to or
from ::1, so that is left alone.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeAlias

from netagent.model.address import Address
from netagent.model.endpoint import Endpoint
from netagent.model.port import PortMapping
from netagent.plan.desired import Chain, ElementSet, HostPort, Target

_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}

SETS = (
    ElementSet(name="publish4", key="inet_proto . inet_service", data="ipv4_addr . inet_service"),
    ElementSet(name="publish4_at", key="ipv4_addr . inet_proto . inet_service", data="ipv4_addr . inet_service"),
    ElementSet(name="publish6", key="inet_proto . inet_service", data="ipv6_addr . inet_service"),
    ElementSet(name="publish6_at", key="ipv6_addr . inet_proto . inet_service", data="ipv6_addr . inet_service"),
    ElementSet(name="ranges4", key="inet_proto . inet_service", data="ipv4_addr", flags=("interval",)),
    ElementSet(name="ranges4_at", key="ipv4_addr . inet_proto . inet_service", data="ipv4_addr", flags=("interval",)),
    ElementSet(name="ranges6", key="inet_proto . inet_service", data="ipv6_addr", flags=("interval",)),
    ElementSet(name="ranges6_at", key="ipv6_addr . inet_proto . inet_service", data="ipv6_addr", flags=("interval",)),
    ElementSet(name="limited4", key="ipv4_addr . inet_proto . inet_service", flags=("interval",)),
    ElementSet(name="limited6", key="ipv6_addr . inet_proto . inet_service", flags=("interval",)),
    ElementSet(name="allowed4", key="ipv4_addr . ipv4_addr . inet_proto . inet_service", flags=("interval",)),
    ElementSet(name="allowed6", key="ipv6_addr . ipv6_addr . inet_proto . inet_service", flags=("interval",)),
    ElementSet(name="hairpin4", key="ipv4_addr . ipv4_addr"),
    ElementSet(name="hairpin6", key="ipv6_addr . ipv6_addr"),
)

TO_LOOPBACK = 'ip daddr 127.0.0.0/8 iifname != "lo"'
FROM_LOOPBACK = 'ip saddr 127.0.0.0/8 iifname != "lo" drop'
"""For the hooks by which packets from other machines are delivered and forwarded."""
NOT_ASKED_FOR = f"{TO_LOOPBACK} ct state invalid,new,untracked drop"
"""For the hook that delivers: an answer to the host's own connection to a container is for 127.0.0.1 again there."""

CHAINS = (
    Chain(
        name="guard",
        # Before ``resolve``, which would translate.
        hook="type nat hook prerouting priority -102; policy accept;",
        rules=(f"{TO_LOOPBACK} drop",),
    ),
    Chain(
        name="admit",
        rules=(
            "ip saddr . ip daddr . meta l4proto . th dport @allowed4 return",
            "ip6 saddr . ip6 daddr . meta l4proto . th dport @allowed6 return",
            "counter drop",
        ),
    ),
    Chain(
        name="publish",
        rules=(
            "ip6 daddr ::1 return",
            "ip daddr . meta l4proto . th dport @limited4 jump admit",
            "ip6 daddr . meta l4proto . th dport @limited6 jump admit",
            "dnat ip to ip daddr . meta l4proto . th dport map @publish4_at",
            "dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish6_at",
            "dnat ip to meta l4proto . th dport map @publish4",
            "dnat ip6 to meta l4proto . th dport map @publish6",
            "dnat ip to ip daddr . meta l4proto . th dport map @ranges4_at",
            "dnat ip6 to ip6 daddr . meta l4proto . th dport map @ranges6_at",
            "dnat ip to meta l4proto . th dport map @ranges4",
            "dnat ip6 to meta l4proto . th dport map @ranges6",
        ),
    ),
    Chain(
        name="prerouting",
        hook="type nat hook prerouting priority dstnat; policy accept;",
        rules=("fib daddr type local jump publish",),
    ),
    Chain(
        name="output",
        # nft 1.0.6 knows the name dstnat only in prerouting; -100 is its value (NF_IP_PRI_NAT_DST).
        hook="type nat hook output priority -100; policy accept;",
        rules=("fib daddr type local jump publish",),
    ),
)


def _elements_of(endpoint: Endpoint, mapping: PortMapping, routed: Collection[int]) -> Iterator[tuple[str, str]]:
    where = mapping.host_address
    for version in (4, 6) if where is None else (where.version,):
        target = endpoint.address_of(version)
        if target is None or version in routed:
            continue
        at, prefix = ("", "") if where is None or where.is_unspecified else ("_at", f"{where} . ")
        if mapping.count > 1 and mapping.host_port == mapping.container_port:
            yield f"ranges{version}{at}", f"{prefix}{mapping.protocol} . {_span(mapping)} : {target}"
        else:
            key, data = f"{prefix}{mapping.protocol}", str(target)
            for host_port, port in zip(mapping.host_ports, mapping.container_ports, strict=True):
                yield f"publish{version}{at}", f"{key} . {host_port} : {data} . {port}"
        yield from _limits_of(mapping, version)


def _limits_of(mapping: PortMapping, version: int) -> Iterator[tuple[str, str]]:
    """Yield what keeps others than the sources of a mapping away, in one family; none of its sources may be in it."""
    if not mapping.sources:
        return
    where = mapping.host_address
    here = _EVERYWHERE[version] if where is None or where.is_unspecified else str(where)
    port = f"{here} . {mapping.protocol} . {_span(mapping)}"
    yield f"limited{version}", port
    for source in mapping.sources:
        if source.version == version:
            alone = source.prefixlen == source.max_prefixlen
            yield f"allowed{version}", f"{source.network_address if alone else source} . {port}"


def _span(mapping: PortMapping) -> str:
    ports = mapping.host_ports
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"


def elements(endpoint: Endpoint, *, routed: Collection[int] = ()) -> dict[str, frozenset[str]]:
    """Return the elements of one endpoint: set name -> elements, one per mapping or port, and family.

    In the IP versions that are ``routed`` no host port leads to it. ``hairpin`` holds the endpoint's own address twice:
    as the source and destination of a request to itself.
    """
    found: dict[str, set[str]] = {}
    for given in endpoint.addresses if endpoint.ports else ():
        found[f"hairpin{given.address.version}"] = {f"{given.address} . {given.address}"}
    for mapping in endpoint.ports:
        for set_name, element in _elements_of(endpoint, mapping, routed):
            found.setdefault(set_name, set()).add(element)
    return {set_name: frozenset(group) for set_name, group in found.items()}


@lru_cache(maxsize=1024)
def _address(text: str) -> Address:
    return ip_address(text)


_Published: TypeAlias = tuple[int, str, str, int, int, str, int]
"""IP version, protocol, host address or "", first and last host port, where to and the first port there."""


def published_ports(elements: Mapping[str, frozenset[str]]) -> dict[HostPort, Target]:
    """Return what the publishing maps among ``elements`` say: host ports -> where their connections go.

    Neighbours that lead to neighbours are one; the ports of each address come in order.
    """
    ports: dict[HostPort, Target] = {}
    entries = sorted(_published(elements))
    start = 0
    for index, entry in enumerate(entries, 1):
        if index == len(entries) or not _continue(entries[start], entry, entries[index]):
            version, protocol, where, first, _, target, port = entries[start]
            address = _address(where) if where else None
            key = HostPort(version=version, protocol=protocol, first=first, last=entry[4], address=address)
            ports[key] = Target(address=_address(target), port=port)
            start = index
    return ports


def _continue(start: _Published, last: _Published, after: _Published) -> bool:
    """Tell whether ``after`` comes after ``last``, which continues ``start``."""
    return (
        after[3] == last[4] + 1
        and after[:3] == start[:3]
        and after[5] == start[5]
        and after[6] - start[6] == after[3] - start[3]
    )


def _published(elements: Mapping[str, frozenset[str]]) -> Iterator[_Published]:
    for version in (4, 6):
        for set_name in (f"{kind}{version}{at}" for kind in ("publish", "ranges") for at in ("", "_at")):
            for element in elements.get(set_name, ()):
                key, _, data = element.partition(" : ")
                where, protocol, service = ("", *key.split(" . "))[-3:]
                first, _, last = service.partition("-")
                target, _, port = data.partition(" . ")
                yield version, protocol, where, int(first), int(last or first), target, int(port or first)
