"""What ``network update`` makes of a network: labels, options, further subnets, subnets that go. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from netagent.drivers import driver_named
from netagent.errors import Conflict, InvalidRequest, NotFound
from netagent.ipam.pools import refuse_overlap
from netagent.model.address import parse_prefix
from netagent.model.endpoint import Endpoint
from netagent.model.host import HostFacts
from netagent.model.label import parse_labels
from netagent.model.network import Network, Scope, Subnet, Way
from netagent.services.existing_bridge import own_gateways, without_bridge
from netagent.services.network_options import change_options, known_by, parse_options, parse_subnets
from netagent.services.requests import NetworkChange, NewNetwork


def change_network(
    network: Network,
    change: NetworkChange,
    *,
    networks: Iterable[Network],
    facts: HostFacts,
    endpoints: Iterable[Endpoint],
) -> Network:
    """Return ``network`` with what is to be changed; refused is what cannot be had beside the others and this host.

    ``endpoints`` are those of this host in the network. They keep the addresses that they have.
    """
    kept = _without(network, change.removed_subnets, endpoints)
    network = replace(network, overlaps=network.overlaps or (change.force and bool(change.subnets)))
    subnets = (*kept, *_added(replace(network, subnets=kept), change, networks, facts))
    if not subnets:
        raise InvalidRequest(
            f"the last subnet of network {network.name} cannot be removed", hint="add another one in the same command"
        )
    return _with_options(replace(network, subnets=subnets), change)


def _with_options(network: Network, change: NetworkChange) -> Network:
    driver = driver_named(change.driver or network.driver)
    if driver.scope is not network.scope:
        raise InvalidRequest(
            f"network {network.name} of the driver {network.driver} cannot get the driver {driver.name}",
            hint="a network stays on one host or across hosts; create another one",
        )
    options = change_options(known_by(network.options, driver.name), change.options)
    has_ipv6 = any(subnet.prefix.version == 6 for subnet in network.subnets)
    parsed = parse_options(options, driver.name, ipv6=has_ipv6)
    if parsed.bridge != network.bridge:
        raise InvalidRequest("the bridge of a network cannot be changed", hint="create another network on it")
    kept = {key: text for key, text in network.labels.items() if key not in change.removed_labels}
    changed = replace(
        network,
        driver=driver.name,
        mtu=parsed.mtu or (network.mtu if network.bridge else None),
        icc=parsed.icc,
        interface_prefix=parsed.interface_prefix,
        routed=parsed.routed,
        unprotected=parsed.unprotected,
        trusted=parsed.trusted,
        default_route=parsed.default_route,
        routes=parsed.routes,
        nameservers=parsed.nameservers,
        masquerade=parsed.masquerade,
        masquerade_except=parsed.masquerade_except,
        outbound=parsed.outbound,
        underlay=parsed.underlay or network.underlay,
        direct_routing=parsed.direct_routing,
        fallback=parsed.fallback,
        host_bindings=parsed.host_bindings,
        backend=parsed.backend,
        options=MappingProxyType(options),
        labels=MappingProxyType(dict(parse_labels({**kept, **change.labels}))),
    )
    return _with_move(network, changed)


def _with_move(network: Network, changed: Network) -> Network:
    """Return ``changed`` as the beginning of a move, if it has another way; one move at a time can be called back."""
    if changed.way == network.way:
        return changed
    is_back = changed.way == network.before and not network.back
    if network.before is not None and not is_back:
        hint = "start the agents that are down, or remove their hosts' containers from the network"
        if not network.back:
            hint += f"; to turn back: netagent network update {_options(network.before)} {network.name}"
        raise Conflict(
            f"network {network.name} is still being moved from the driver {network.before.driver}"
            f" to {network.driver}, because a host has not turned to it",
            hint=hint,
        )
    return replace(changed, before=network.way, moves=network.moves + 1, back=is_back)


def _options(way: Way) -> str:
    """Return the options of ``network update`` that mean ``way``."""
    given = {
        "direct-routing": "true" if way.direct_routing else "",
        "fallback": way.fallback or "",
        "backend": way.backend or "",
        "underlay": "ipv6" if way.underlay == 6 else "",
    }
    return " ".join((f"--driver {way.driver}", *(f"--opt {key}={value}" for key, value in given.items() if value)))


def _added(
    network: Network, change: NetworkChange, networks: Iterable[Network], facts: HostFacts
) -> tuple[Subnet, ...]:
    request = NewNetwork(
        name=network.name, subnets=change.subnets, gateways=change.gateways, ip_ranges=change.ip_ranges
    )
    if network.bridge is None:
        added = parse_subnets(request, network.scope)
    else:
        added = parse_subnets(request, network.scope, gateways=own_gateways(request, network.bridge, facts))
        facts = without_bridge(facts, network.bridge)
    others = [network if other.id == network.id else other for other in networks]
    if network.overlaps:
        facts = replace(facts, routes=(), interfaces={})
    refuse_overlap(added, others, facts)
    return added


def _without(network: Network, texts: Iterable[str], endpoints: Iterable[Endpoint]) -> tuple[Subnet, ...]:
    """Return the subnets that stay; refused is the removal of one that is in use or unknown."""
    leaving = {parse_prefix(text) for text in texts}
    if not leaving:
        return network.subnets
    for prefix in leaving - {subnet.prefix for subnet in network.subnets}:
        raise NotFound(
            f"network {network.name} has no subnet {prefix}",
            hint=f"it has {', '.join(str(subnet.prefix) for subnet in network.subnets)}",
        )
    if network.scope is not Scope.LOCAL:
        raise InvalidRequest(
            f"a subnet of network {network.name} cannot be removed: other hosts may use it",
            hint="only a network on one host gives subnets back",
        )
    users = sorted(e.container_name for e in endpoints for a in e.addresses if any(a.address in p for p in leaving))
    if users:
        raise Conflict(
            f"a subnet of network {network.name} cannot be removed: {', '.join(users)} has an address in it",
            hint=f"netagent network disconnect {network.name} {users[0]}",
        )
    return tuple(subnet for subnet in network.subnets if subnet.prefix not in leaving)
