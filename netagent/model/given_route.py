"""Routes of a container beyond its subnet: its network's default, or those that whoever manages its addresses gave."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from netagent.errors import InvalidRequest
from netagent.model.address import Address, Prefix, parse_address
from netagent.model.network import Network, Subnet

ROUTES_LIMIT = 64
"""Routes of one endpoint."""

_EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRoute:
    """A route inside a sandbox; one to everywhere is a default route."""

    destination: Prefix
    gateway: Address

    @property
    def is_default(self) -> bool:
        """Whether it leads everywhere."""
        return not self.destination.prefixlen


def default_route(subnet: Subnet) -> GivenRoute:
    """Return the route that a subnet has if nobody gives another one."""
    return GivenRoute(destination=_EVERYWHERE[subnet.prefix.version], gateway=subnet.gateway)


def parse_given_routes(pairs: Sequence[tuple[str, str]], network: Network) -> tuple[GivenRoute, ...]:
    """Return routes of destination and gateway, the network's own if that is empty; InvalidRequest if one cannot be.

    Of two to one destination the first wins. What the kernel has from the address itself is left out.
    """
    if len(pairs) > ROUTES_LIMIT:
        raise InvalidRequest(f"{len(pairs)} routes are too many", hint=f"a container may have {ROUTES_LIMIT}")
    found: dict[Prefix, GivenRoute] = {}
    for destination, gateway in pairs:
        route = _parse(destination, gateway, network)
        if not any(route.destination in _own_routes(s.prefix) for s in network.subnets):
            found.setdefault(route.destination, route)
    return tuple(found.values())


def _parse(text: str, gateway_text: str, network: Network) -> GivenRoute:
    try:
        destination: Prefix = ip_network(text, strict=False)
    except ValueError:
        raise InvalidRequest(f"invalid destination of a route: {text}", hint="use a prefix, e.g. 10.0.0.0/8") from None
    subnet = next((s for s in network.subnets if s.prefix.version == destination.version), None)
    if subnet is None:
        raise InvalidRequest(f"invalid route to {text}", hint=f"network {network.name} has no IPv{destination.version}")
    gateway = parse_address(gateway_text) if gateway_text else subnet.gateway
    if gateway.version != destination.version or not (gateway in subnet.prefix or _is_link_local(gateway)):
        raise InvalidRequest(
            f"gateway {gateway} of the route to {text} is not in network {network.name}",
            hint=f"its subnet is {subnet.prefix}, and its own gateway {subnet.gateway}",
        )
    return GivenRoute(destination=destination, gateway=gateway)


def _is_link_local(address: Address) -> bool:
    return address.version == 6 and address.is_link_local


def _own_routes(prefix: Prefix) -> Iterator[Prefix]:
    """Yield where a subnet's addresses lead without further routes: to it, in IPv6 to both its halves."""
    yield prefix
    if prefix.version == 6 and prefix.prefixlen < prefix.max_prefixlen:
        yield from prefix.subnets(prefixlen_diff=1)


def lead_out(routes: Iterable[GivenRoute], version: int) -> bool:
    """Tell whether an endpoint with these given routes has a default route of that IP version."""
    given = [route for route in routes if route.destination.version == version]
    return not given or any(route.is_default for route in given)
