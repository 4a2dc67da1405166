"""Networks on a bridge that somebody else made and keeps: which subnets they have, and when they are refused. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_network

from netagent.errors import Conflict, InvalidRequest, NotFound
from netagent.model.address import Address, parse_prefix
from netagent.model.host import HostFacts
from netagent.model.network import Network, Scope, Subnet
from netagent.plan.names import bridge_name
from netagent.services.network_options import match_gateways, parse_subnets
from netagent.services.requests import NewNetwork


def subnets_of_bridge(
    request: NewNetwork, bridge: str, facts: HostFacts, networks: Iterable[Network]
) -> tuple[Subnet, ...]:
    """Return the subnets of a network on ``bridge``: those asked for, else those that its own addresses lie in.

    A gateway that is not given is the bridge's own address, which no container gets in any case.
    """
    _refuse(bridge, facts, networks)
    own = [(address, length) for address, length in facts.bridges[bridge] if not address.is_link_local]
    found = {address.version: str(ip_network((address, length), strict=False)) for address, length in reversed(own)}
    wanted = [version for version in sorted(found) if version == 6 or request.ipv4 is not False]
    texts = request.subnets or tuple(found[version] for version in wanted)
    if request.ipv6 and not any(":" in text for text in texts):
        raise InvalidRequest(f"bridge {bridge} has no IPv6 address", hint="give it one, or leave out --ipv6")
    if not texts:
        raise InvalidRequest(
            f"bridge {bridge} has no address", hint="give it one, or say --subnet and --gateway for what is behind it"
        )
    asked = replace(request, subnets=texts)
    gateways = own_gateways(asked, bridge, facts)
    auxiliary = {
        f"{bridge} {address}": str(address)
        for address, _ in own
        for text in texts
        if _is_in(address, text) and str(address) != gateways[text]
    }
    asked = replace(asked, aux_addresses={**auxiliary, **request.aux_addresses})
    return parse_subnets(asked, Scope.LOCAL, gateways=gateways)


def own_gateways(request: NewNetwork, bridge: str, facts: HostFacts) -> dict[str, str]:
    """Return the gateway of each subnet asked for: the one given, else the bridge's own address there."""
    gateways = match_gateways(request)
    for text in request.subnets:
        inside = next((address for address, _ in facts.bridges.get(bridge, ()) if _is_in(address, text)), None)
        if text not in gateways and inside is None:
            raise InvalidRequest(
                f"bridge {bridge} has no address in {text}", hint="give --gateway, or the bridge an address there"
            )
        gateways.setdefault(text, str(inside))
    return gateways


def _is_in(address: Address, text: str) -> bool:
    prefix = parse_prefix(text)
    return address.version == prefix.version and address in prefix


def without_bridge(facts: HostFacts, bridge: str) -> HostFacts:
    """Return ``facts`` without a bridge's own addresses and routes, which its network is meant to overlap."""
    return replace(
        facts,
        interfaces={name: known for name, known in facts.interfaces.items() if name != bridge},
        routes=tuple(route for route in facts.routes if route.device != bridge),
    )


def _refuse(bridge: str, facts: HostFacts, networks: Iterable[Network]) -> None:
    user = next((network for network in networks if network.has_endpoints and bridge_name(network) == bridge), None)
    if user is not None and user.bridge is None:
        raise Conflict(f"bridge {bridge} is netagent's own, of network {user.name}", hint=f"use network {user.name}")
    if user is not None:
        raise Conflict(f"bridge {bridge} is used by network {user.name} already", hint=f"use network {user.name}")
    if bridge in facts.bridges:
        return
    if bridge in facts.interfaces:
        raise InvalidRequest(f"interface {bridge} is not a bridge", hint="make it a port of one and name that")
    raise NotFound(f"bridge {bridge} does not exist", hint=f"ip link add {bridge} type bridge, or leave the option out")
