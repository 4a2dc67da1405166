"""The difference between what should be and what is, as operations.

One function for both scopes: for one endpoint both states hold only that endpoint's part; for everything they hold
all that is ours. ``prune`` false leaves surplus alone: nothing is removed before the whole truth has been heard.
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from typing import TypeVar

from netagent.firewall.elements import element_key, overlap
from netagent.firewall.routed import EXEMPTIONS
from netagent.firewall.ruleset import INTERVAL_SETS
from netagent.model.address import host_prefix
from netagent.plan.desired import HOST, Bridge, InterfaceAddress, Link, Ruleset, State, Veth
from netagent.plan.flows import flows
from netagent.plan.operation import (
    AddAddress,
    AddAdminChains,
    AddElements,
    AddFdb,
    AddLink,
    AddNeighbour,
    AddRoute,
    AddSourceRoute,
    AddTunnelSource,
    Announce,
    DeleteAddress,
    DeleteElements,
    DeleteFdb,
    DeleteLink,
    DeleteNeighbour,
    DeleteRedirect,
    DeleteRoute,
    DeleteShaper,
    DeleteSourceRoute,
    DeleteTunnelSource,
    Operation,
    Plan,
    ReplaceRuleset,
    SetLink,
    SetRedirect,
    SetShaper,
    SetSysctl,
)

_T = TypeVar("_T")


def diff(desired: State, observed: State, *, prune: bool = True) -> Plan:
    """Return the plan that turns ``observed`` into ``desired``; empty if they agree."""
    rebuilt = frozenset(
        name
        for name, link in desired.links.items()
        if name in observed.links and (name in observed.broken or not _same_device(link, observed.links[name]))
    )
    operations: list[Operation] = []
    if desired.admin and not observed.admin:
        operations.append(AddAdminChains(desired.admin))
    operations.extend(_ruleset(desired.ruleset, observed.ruleset, prune))
    operations.extend(flows(desired.ruleset, observed.ruleset, prune))
    operations.extend(_links(desired, observed, rebuilt, prune))
    operations.extend(_addresses(desired, observed, rebuilt, prune))
    operations.extend(_tables(desired, observed, rebuilt, prune))
    operations.extend(_limits(desired, observed, rebuilt, prune))
    operations.extend(
        SetSysctl(name, value)
        for name, value in desired.sysctls.items()
        if observed.sysctls.get(name) != value or _sysctl_device(name) in rebuilt
    )
    operations.extend(_source_routes(desired, observed, rebuilt, prune))
    operations.extend(_announcements(desired, observed, rebuilt))
    return Plan.ordered(operations)


def _same_device(desired: Link, observed: Link) -> bool:
    """Tell whether the device can become ``desired`` by settings alone. A veth's far end was checked when observed."""
    if type(desired.kind) is not type(observed.kind):
        return False
    return isinstance(desired.kind, Veth | Bridge) or desired.kind == observed.kind


def _settings(link: Link) -> tuple[object, ...]:
    match link.kind:
        case Veth(hairpin=switch) | Bridge(learns_from_groups=switch):
            return (link.mtu, link.alias, link.master, link.up, switch)
        case _:
            return (link.mtu, link.alias, link.master, link.up)


def _links(desired: State, observed: State, rebuilt: frozenset[str], prune: bool) -> Iterator[Operation]:
    for name, link in desired.links.items():
        present = observed.links.get(name)
        if present is None:
            yield AddLink(link)
        elif name in rebuilt:
            yield DeleteLink(present, stale=True)
            yield AddLink(link)
        elif (
            _settings(present) != _settings(link)
            or (link.mac is not None and link.mac != present.mac)
            or (link.offload is False and present.offload is not False)
        ):
            yield SetLink(link)
    if prune:
        yield from (DeleteLink(link) for name, link in observed.links.items() if name not in desired.links)


def _addresses(desired: State, observed: State, rebuilt: frozenset[str], prune: bool) -> Iterator[Operation]:
    kept = {a for a in observed.addresses if a.device not in rebuilt}
    surplus: list[InterfaceAddress] = []
    if prune:
        # Addresses inside a sandbox are never deleted one by one: they go with the interface.
        surplus = _sorted(a for a in kept - desired.addresses if a.where == HOST)
    # A gateway that is an address of this host is refused: "Nexthop has invalid gateway" (fib_check_nh,
    # net/ipv4/fib_semantics.c). So it is where a peer holds a block by now that this host had.
    gateways = {r.gateway for r in desired.routes - observed.routes if r.where == HOST}
    yield from (DeleteAddress(address, early=True) for address in surplus if address.address in gateways)
    yield from (AddAddress(address) for address in _sorted(desired.addresses - kept))
    gone = _gone(desired, observed)
    yield from (DeleteAddress(a) for a in surplus if a.device not in gone and a.address not in gateways)


def _tables(desired: State, observed: State, rebuilt: frozenset[str], prune: bool) -> Iterator[Operation]:
    """Neighbours, forwarding entries, what tunnels take, and routes.

    Those of a device that goes or is made anew vanish with it.
    """
    gone = _gone(desired, observed)
    neighbours = {n for n in observed.neighbours if n.device not in rebuilt}
    fdb = {e for e in observed.fdb if e.device not in rebuilt}
    sources = {s for s in observed.tunnel_sources if s.device not in rebuilt}
    routes = {r for r in observed.routes if r.device not in rebuilt}
    yield from (AddNeighbour(n) for n in _sorted(desired.neighbours - neighbours))
    yield from (AddFdb(e) for e in _sorted(desired.fdb - fdb))
    yield from (AddTunnelSource(s) for s in _sorted(desired.tunnel_sources - sources))
    # Routes without a gateway first: those with one need a way to it.
    yield from (AddRoute(r) for r in sorted(_sorted(desired.routes - routes), key=lambda r: r.gateway is not None))
    if not prune:
        return
    # An entry that was replaced under the same key must not be deleted after its successor was put.
    neighbour_keys = {(n.device, n.address) for n in desired.neighbours}
    route_keys = {(r.where, r.destination) for r in desired.routes}
    yield from (
        DeleteNeighbour(n)
        for n in _sorted(neighbours - desired.neighbours)
        if n.device not in gone and (n.device, n.address) not in neighbour_keys
    )
    yield from (DeleteFdb(e) for e in _sorted(fdb - desired.fdb) if e.device not in gone)
    yield from (DeleteTunnelSource(s) for s in _sorted(sources - desired.tunnel_sources) if s.device not in gone)
    yield from (
        DeleteRoute(r)
        for r in _sorted(routes - desired.routes)
        if r.where == HOST and r.device not in gone and (r.where, r.destination) not in route_keys
    )


def _limits(desired: State, observed: State, rebuilt: frozenset[str], prune: bool) -> Iterator[Operation]:
    """Shapers and redirects; they vanish with either of their devices."""
    shapers = {s for s in observed.shapers if s.device not in rebuilt}
    redirects = {r for r in observed.redirects if not {r.device, r.through} & rebuilt}
    # The queue first, then what leads to it.
    yield from (SetShaper(s) for s in _sorted(desired.shapers - shapers))
    yield from (SetRedirect(r) for r in _sorted(desired.redirects - redirects))
    if not prune:
        return
    gone = _gone(desired, observed)
    shaped, led = {s.device for s in desired.shapers}, {r.device for r in desired.redirects}
    yield from (DeleteRedirect(r) for r in _sorted(redirects) if r.device not in led | gone)
    yield from (DeleteShaper(s) for s in _sorted(shapers) if s.device not in shaped | gone)


def _source_routes(desired: State, observed: State, rebuilt: frozenset[str], prune: bool) -> Iterator[Operation]:
    """Yield rules that are missing, or whose table went with an interface that is made anew; and those that go."""
    fresh = rebuilt | (desired.links.keys() - observed.links.keys())
    ends = {
        (kind.sandbox, kind.interface)
        for name, link in desired.links.items()
        if name in fresh and isinstance(kind := link.kind, Veth)
    }
    for route in _sorted(desired.source_routes):
        if route not in observed.source_routes or (route.where, route.device) in ends:
            yield AddSourceRoute(route)
    if prune:
        yield from (DeleteSourceRoute(route) for route in _sorted(observed.source_routes - desired.source_routes))


def _announcements(desired: State, observed: State, rebuilt: frozenset[str]) -> Iterator[Operation]:
    """Yield what neighbours must be told: addresses new in a sandbox, and those that are elsewhere from now on."""
    if not desired.announcements:
        return
    kept = {a for a in observed.addresses if a.device not in rebuilt}
    new = {(a.where, a.device, a.address) for a in desired.addresses - kept}
    moved = {r.destination for r in desired.routes - observed.routes if r.where == HOST}
    for told in _sorted(desired.announcements):
        is_new = (
            host_prefix(told.address) in moved if told.where == HOST else (told.where, told.device, told.address) in new
        )
        if is_new:
            yield Announce(told)


def _gone(desired: State, observed: State) -> frozenset[str]:
    return frozenset(name for name in observed.links if name not in desired.links)


def _sysctl_device(name: tuple[str, ...]) -> str:
    """Return the interface that a per-interface setting belongs to (net/ipv4/conf/<interface>/…), or ''."""
    return name[3] if len(name) > 4 else ""


def _ruleset(desired: Ruleset | None, observed: Ruleset | None, prune: bool) -> Iterator[Operation]:
    if desired is None:
        return
    if observed is None or (desired.sets, desired.chains) != (observed.sets, observed.chains):
        yield ReplaceRuleset(desired if prune or observed is None else _with_elements_of(observed, desired))
        return
    for name in sorted({*desired.elements, *observed.elements}):
        wanted = desired.elements.get(name, frozenset())
        present = observed.elements.get(name, frozenset())
        added, surplus = wanted - present, present - wanted
        early = tuple(sorted(_in_the_way(surplus, added, is_interval=name in INTERVAL_SETS)))
        late = tuple(sorted(surplus.difference(early)))
        if early:
            yield DeleteElements(name, early, early=True)
        if added:
            yield AddElements(name, tuple(sorted(added)))
        if late and prune:
            yield DeleteElements(name, late, last=name in EXEMPTIONS)


def _in_the_way(surplus: Set[str], added: Set[str], *, is_interval: bool) -> Iterator[str]:
    """Yield the surplus elements that must go before ``added`` can come: same key, or an interval that overlaps."""
    keys = {element_key(element) for element in added}
    for element in surplus:
        key = element_key(element)
        if key in keys or (is_interval and any(overlap(key, other) for other in keys)):
            yield element


def _with_elements_of(observed: Ruleset, desired: Ruleset) -> Ruleset:
    """Return ``desired`` with the elements that the old table has in sets of the same name, by key."""
    merged = dict(desired.elements)
    for element_set in desired.sets:
        wanted = desired.elements.get(element_set.name, frozenset())
        old = observed.elements.get(element_set.name, frozenset())
        kept = old - wanted
        kept -= frozenset(_in_the_way(kept, wanted, is_interval=element_set.name in INTERVAL_SETS))
        if kept:
            merged[element_set.name] = wanted | kept
    return replace(desired, elements=merged)


def _sorted(items: Iterable[_T]) -> list[_T]:
    """Return ``items`` in an order that does not change between runs, for plans that can be compared as text."""
    return sorted(items, key=str)
