"""Subnets for networks: parsing what a user asks for, choosing one when none is asked for, refusing overlaps."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_network

from netaddr import IPSet

from netagent.errors import Conflict, Exhausted, InvalidRequest
from netagent.model.address import (
    Address,
    Prefix,
    is_inside,
    is_unassignable,
    nth,
    overlap,
    parse_address,
    parse_prefix,
)
from netagent.model.host import Host, HostFacts
from netagent.model.network import Network, Scope, Subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Where automatic subnets come from, and their prefix length."""

    base: Prefix
    length: int


POOLS = {
    Scope.GLOBAL: (Pool(base=parse_prefix("10.128.0.0/9"), length=16),),
    Scope.LOCAL: (
        Pool(base=parse_prefix("172.16.0.0/12"), length=24),
        Pool(base=parse_prefix("192.168.0.0/16"), length=24),
    ),
}
"""The pools where none are configured; for IPv6 there are unique local addresses instead (RFC 4193)."""

_ULA_ATTEMPTS = 100

_NOT_FOR_CONTAINERS = tuple(
    parse_prefix(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8")
)
"""This-host, loopback, link-local, multicast and reserved ranges (RFC 6890)."""


def default_block_length(prefix: Prefix) -> int:
    """Return the prefix length of the blocks that a cluster-wide subnet is cut into.

    /24 for an IPv4 subnet of /20 or larger, else four bits more than its own, so that a /24 serves 15 hosts; IPv6
    /80 for a /64, in general sixteen bits more. Four addresses are the smallest useful block.
    """
    if prefix.version == 6:
        return min(prefix.prefixlen + 16, 126)
    return 24 if prefix.prefixlen <= 20 else min(prefix.prefixlen + 4, 30)


def parse_pool(base: str, length: int) -> Pool:
    """Return a pool as the configuration gives it; InvalidRequest, in Docker's words, if no subnet fits in."""
    prefix = parse_prefix(base)
    check_usable(prefix)
    if not prefix.prefixlen <= length <= prefix.max_prefixlen - 2:
        raise InvalidRequest(
            f"invalid default address pool {base}: size {length}",
            hint=f"between {prefix.prefixlen} and {prefix.max_prefixlen - 2}",
        )
    return Pool(base=prefix, length=length)


def parse_bip(text: str) -> Subnet:
    """Return the subnet of the default network, given as its bridge's address: Docker's ``bip``, ``172.18.42.1/16``."""
    address, slash, length = text.partition("/")
    parsed = parse_address(address, what="bip")
    if not slash or not (length.isascii() and length.isdigit()) or int(length) > parsed.max_prefixlen:
        raise InvalidRequest(
            f"invalid bip {text}: not an address with a prefix length", hint="for example 172.18.42.1/16"
        )
    prefix = ip_network((parsed, int(length)), strict=False)
    return parse_subnet(str(prefix), scope=Scope.LOCAL, gateway=address)


def parse_subnet(
    text: str,
    *,
    scope: Scope,
    gateway: str | None = None,
    block_length: int | None = None,
    ip_range: str | None = None,
    auxiliary: Mapping[str, str] | None = None,
) -> Subnet:
    """Return the subnet a user asked for; whatever cannot work is refused, in Docker's words where it has them."""
    prefix = parse_prefix(text)
    check_usable(prefix)
    length = prefix.prefixlen
    if scope is Scope.GLOBAL:
        length = block_length or default_block_length(prefix)
        if not prefix.prefixlen < length <= prefix.max_prefixlen - 1:
            raise InvalidRequest(
                f"invalid host prefix /{length} for subnet {text}: a block must be smaller than the subnet",
                hint=f"between /{prefix.prefixlen + 1} and /{prefix.max_prefixlen - 1}",
            )
    elif block_length is not None:
        raise InvalidRequest(f"invalid host prefix /{block_length}: the network lives on one host", hint="leave it out")
    pool = None if ip_range is None else _parse_range(ip_range, prefix)
    if pool is not None and scope is Scope.GLOBAL and pool.prefixlen > length:
        raise InvalidRequest(
            f"invalid ip-range {ip_range}: smaller than the block of a host, /{length}",
            hint=f"give a range of /{length} or larger, or another --host-prefix",
        )
    parsed = _parse_gateway(gateway, prefix)
    others = tuple((name, _parse_auxiliary(aux, prefix, parsed)) for name, aux in (auxiliary or {}).items())
    return Subnet(prefix=prefix, gateway=parsed, block_length=length, ip_range=pool, auxiliary=others)


def _parse_range(text: str, prefix: Prefix) -> Prefix:
    try:
        pool = parse_prefix(text)
    except InvalidRequest as error:
        raise InvalidRequest(error.message.replace("invalid subnet", "invalid ip-range", 1), hint=error.hint) from None
    if pool.version == prefix.version and pool.prefixlen < prefix.prefixlen and overlap(pool, prefix):
        raise InvalidRequest(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {prefix}")
    if not is_inside(pool, prefix):
        raise InvalidRequest(f"invalid ip-range {text}: parent subnet {prefix} doesn't contain ip-range")
    return pool


def _parse_auxiliary(text: str, prefix: Prefix, gateway: Address) -> Address:
    address = parse_address(text, what="auxiliary address")
    if is_unassignable(address, prefix):
        raise InvalidRequest(f"invalid auxiliary address {text}: not an address for an interface in {prefix}")
    if address == gateway:
        raise InvalidRequest(f"invalid auxiliary address {text}: it is the gateway of {prefix}")
    return address


def check_usable(prefix: Prefix) -> None:
    """Raise InvalidRequest for a subnet that no network may have, whoever asks: a user or a record of the store."""
    forbidden = next((f for f in _NOT_FOR_CONTAINERS if overlap(f, prefix)), None)
    if forbidden is not None:
        raise InvalidRequest(f"invalid subnet {prefix}: {forbidden} is not for containers", hint="use a private range")
    if prefix.num_addresses < 4:
        raise InvalidRequest(f"invalid subnet {prefix}: too small", hint="the smallest is a /30 or /126")


def _parse_gateway(text: str | None, prefix: Prefix) -> Address:
    if text is None:
        return nth(prefix, 1)
    gateway = parse_address(text, what="gateway address")
    if gateway not in prefix:
        raise InvalidRequest(f"invalid gateway {text}: parent subnet {prefix} doesn't contain this address")
    if is_unassignable(gateway, prefix):
        raise InvalidRequest(f"invalid gateway {text}: not an address for an interface in {prefix}")
    return gateway


def refuse_overlap(subnets: Iterable[Subnet], networks: Iterable[Network], facts: HostFacts) -> None:
    """Raise Conflict if a subnet overlaps another network, another of ``subnets``, or a route of this host."""
    seen: list[Prefix] = []
    known = tuple(networks)
    for subnet in subnets:
        if any(overlap(subnet.prefix, other) for other in seen):
            raise InvalidRequest("multiple overlapping subnet configuration is not supported")
        seen.append(subnet.prefix)
        for network in known:
            clash = next((s for s in network.subnets if overlap(s.prefix, subnet.prefix)), None)
            if clash is not None:
                raise Conflict(
                    f"subnet {subnet.prefix} overlaps with {clash.prefix} of network {network.name}",
                    hint="choose another --subnet, or leave it out to get a free one",
                )
        _refuse_host_overlap(subnet.prefix, facts)


def refuse_foreign_routes(subnets: Iterable[Subnet], hosts: Iterable[Host]) -> None:
    """Raise Conflict if one of ``hosts`` uses a subnet otherwise, by what it says of itself."""
    known = tuple(hosts)
    for subnet in subnets:
        for host in known:
            clash = next((route for route in host.routes if overlap(route, subnet.prefix)), None)
            if clash is not None:
                raise Conflict(
                    f"subnet {subnet.prefix} overlaps with {clash}, which host {host.name} routes",
                    hint="choose another --subnet, leave it out to get a free one, or take it with --force",
                )


def _refuse_host_overlap(prefix: Prefix, facts: HostFacts) -> None:
    for route in facts.routes:
        if route.prefix.prefixlen and overlap(route.prefix, prefix):
            raise Conflict(
                f"subnet {prefix} overlaps with the host's route {route.prefix} dev {route.device}",
                hint="choose another --subnet, leave it out to get a free one, or take it with --force",
            )
    for name, (_, addresses) in facts.interfaces.items():
        inside = next((a for a in addresses if a in prefix), None)
        if inside is not None:
            raise Conflict(
                f"subnet {prefix} overlaps with the host's address {inside} on {name}",
                hint="choose another --subnet, leave it out to get a free one, or take it with --force",
            )


def choose_subnet(
    scope: Scope,
    networks: Iterable[Network],
    facts: HostFacts,
    pools: Sequence[Pool] = (),
    *,
    version: int = 4,
    block_length: int | None = None,
) -> Subnet:
    """Return the first free subnet of ``pools``, else of the scope's; Exhausted in Docker's words if there is none."""
    taken = [s.prefix for network in networks for s in network.subnets]
    taken += [route.prefix for route in facts.routes if route.prefix.prefixlen]
    for pool in pools or POOLS[scope]:
        if pool.base.version != version:
            continue
        free = IPSet([str(pool.base)]) - IPSet([str(prefix) for prefix in taken if prefix.version == version])
        for cidr in free.iter_cidrs():
            if cidr.prefixlen <= pool.length:
                return parse_subnet(f"{cidr.network}/{pool.length}", scope=scope, block_length=block_length)
    raise Exhausted(
        "all predefined address pools have been fully subnetted", hint="give a --subnet, or remove networks"
    )


def choose_ipv6_subnet(
    seed: str, scope: Scope, networks: Sequence[Network], facts: HostFacts, pools: Sequence[Pool] = ()
) -> Subnet:
    """Return a free IPv6 subnet: of the configured ``pools``, else a /64 of unique local addresses out of ``seed``.

    The global id's 40 bits are a digest, as good as random (RFC 4193, section 3.2.2), so that networks of different
    clusters do not clash when they are joined.
    """
    if any(pool.base.version == 6 for pool in pools):
        return choose_subnet(scope, networks, facts, pools, version=6)
    for attempt in range(_ULA_ATTEMPTS):
        digest = hashlib.sha256(f"{seed}\0{attempt}".encode()).digest()
        subnet = parse_subnet(str(IPv6Network((b"\xfd" + digest[:5] + bytes(10), 64))), scope=scope)
        taken = [s.prefix for network in networks for s in network.subnets]
        taken += [route.prefix for route in facts.routes if route.prefix.prefixlen]
        if not any(overlap(subnet.prefix, prefix) for prefix in taken):
            return subnet
    raise Exhausted("no unique local IPv6 subnet is free", hint="give an IPv6 --subnet")
