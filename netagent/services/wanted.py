"""What is asked of an endpoint, parsed and checked, before anything is decided or changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from netagent.errors import Conflict, InvalidRequest
from netagent.model.address import Address, Mac, Prefix, parse_address, parse_mac
from netagent.model.endpoint import Endpoint
from netagent.model.given_route import GivenRoute, parse_given_routes
from netagent.model.ids import parse_alias
from netagent.model.link_local import parse_link_locals
from netagent.model.network import DEFAULT_NETWORK, Network
from netagent.model.port import PortMapping
from netagent.model.port_grammar import parse_exposed, parse_published
from netagent.model.rate import Rate, check_rate, parse_rate
from netagent.services.network_texts import NetworkText, split_networks
from netagent.services.requests import AddressRange, Connection

_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One endpoint as it was asked for, parsed and checked: what is left to decide are addresses and free ports."""

    network: Network
    interface: str
    addresses: tuple[Address, ...] = ()
    mac: Mac | None = None
    aliases: tuple[str, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    gw_priority: int = 0
    rate_in: Rate | None = None
    rate_out: Rate | None = None
    ranges: tuple[tuple[Address, Address], ...] = ()
    link_local: tuple[Address, ...] = ()
    routes: tuple[GivenRoute, ...] = ()


def parse_wanted(connection: Connection, networks: Sequence[Network], interfaces: Sequence[str]) -> tuple[Wanted, ...]:
    """Return what ``connection`` asks of ``networks``, which are those that it names.

    Ports go to the first; aliases and limits beside the networks are the same in each.
    """
    texts = split_networks(connection)
    rate_in = _parse_limit(connection.rate_in, what="--rate-in")
    rate_out = _parse_limit(connection.rate_out, what="--rate-out")
    wanted = tuple(
        Wanted(
            network=network,
            interface=interface,
            addresses=_parse_addresses(text, network),
            mac=parse_mac(text.mac) if text.mac else None,
            aliases=_parse_aliases(text, network),
            ports=parse_ports(connection) if text is texts[0] else (),
            gw_priority=text.gw_priority or 0,
            rate_in=rate_in,
            rate_out=rate_out,
            ranges=tuple(_parse_range(asked, network) for asked in connection.ranges),
            link_local=_parse_link_locals(text, network),
            routes=parse_given_routes(connection.routes or _routes_of(network), network),
        )
        for text, network, interface in zip(texts, networks, interfaces, strict=True)
    )
    refuse_same_routes((want.network, route) for want in wanted for route in want.routes)
    return wanted


def _routes_of(network: Network) -> list[tuple[str, str]]:
    """Return the routes that a network gives beside its default one, which they would take the place of."""
    versions = {ip_network(destination).version for destination, _ in network.routes}
    defaults = [(_EVERYWHERE[version], "") for version in sorted(versions) if network.default_route]
    return [*network.routes, *defaults]


def refuse_same_routes(routes: Iterable[tuple[Network, GivenRoute]]) -> None:
    """Raise Conflict if two networks of one container have a route to one destination: the kernel takes one."""
    seen: dict[Prefix, Network] = {}
    for network, route in routes:
        other = seen.setdefault(route.destination, network)
        if other.id != network.id and not route.is_default:
            raise Conflict(
                f"networks {other.name} and {network.name} both have a route to {route.destination}",
                hint="connect the container to one of them, or change the routes of the other",
            )


def _parse_limit(limit: str | Rate, *, what: str) -> Rate | None:
    if isinstance(limit, Rate):
        return check_rate(limit, what=what)
    return parse_rate(limit, what=what) if limit else None


def _parse_range(asked: AddressRange, network: Network) -> tuple[Address, Address]:
    first, last = parse_address(asked.first), parse_address(asked.last)
    subnet = network.subnet_of(first)
    if subnet is None or subnet != network.subnet_of(last) or int(last) < int(first):
        raise InvalidRequest(
            f"no configured subnet contains the range {first} to {last}",
            hint=f"network {network.name} has {', '.join(str(s.prefix) for s in network.subnets)}",
        )
    if asked.gateway and parse_address(asked.gateway) != subnet.gateway:
        raise InvalidRequest(
            f"invalid gateway {asked.gateway} of a range", hint=f"network {network.name} has {subnet.gateway}"
        )
    return first, last


def _parse_addresses(text: NetworkText, network: Network) -> tuple[Address, ...]:
    addresses = tuple(parse_address(address) for address in text.addresses)
    if addresses and network.is_predefined:
        raise InvalidRequest(
            "user specified IP address is supported on user defined networks only",
            hint=f"netagent network create NAME, then --network NAME instead of {network.name}",
        )
    if len({address.version for address in addresses}) < len(addresses):
        raise InvalidRequest("more than one --ip of the same family", hint="give one IPv4 and one IPv6 address at most")
    return addresses


def _parse_link_locals(text: NetworkText, network: Network) -> tuple[Address, ...]:
    found = parse_link_locals(text.link_local)
    versions = {subnet.prefix.version for subnet in network.subnets}
    missing = next((address for address in found if address.version not in versions), None)
    if missing is not None:
        raise InvalidRequest(
            f"no configured subnet contains IP address {missing}",
            hint=f"network {network.name} has no IPv{missing.version}",
        )
    return found


def _parse_aliases(text: NetworkText, network: Network) -> tuple[str, ...]:
    if text.aliases and network.name == DEFAULT_NETWORK and network.is_predefined:
        raise InvalidRequest(
            "network-scoped aliases are only supported for user-defined networks",
            hint="netagent network create NAME, then --network NAME",
        )
    return tuple(parse_alias(alias) for alias in text.aliases)


def parse_ports(connection: Connection) -> tuple[PortMapping, ...]:
    """Return what is to be published: ``-p``, and with ``-P`` whatever else is exposed, on free ports."""
    published = parse_published(connection.publish)
    exposed = parse_exposed(connection.expose)
    if not connection.publish_all:
        return published
    covered = {(mapping.protocol, port) for mapping in published for port in mapping.container_ports}
    return published + tuple(m for m in exposed if (m.protocol, m.container_port) not in covered)


def parse_served(connection: Connection) -> tuple[str, ...]:
    """Return the ports that a container serves, as ``80/tcp``: those exposed and those published."""
    mappings = (*parse_exposed(connection.expose), *parse_published(connection.publish))
    return tuple(dict.fromkeys(f"{port}/{m.protocol}" for m in mappings for port in m.container_ports))


def wanted_again(endpoint: Endpoint, network: Network) -> Wanted:
    """Return what a dormant endpoint needs to come back: its fixed addresses, ports and names."""
    return Wanted(
        network=network,
        interface=endpoint.interface,
        addresses=tuple(a.address for a in endpoint.addresses if a.fixed),
        link_local=endpoint.link_local,
        mac=endpoint.mac,
        aliases=endpoint.aliases,
        ports=endpoint.ports,
        routes=endpoint.given_routes,
        gw_priority=endpoint.gw_priority,
        rate_in=endpoint.rate_in,
        rate_out=endpoint.rate_out,
    )
