"""Reads from the kernel what is ours by mark, in the words of the plan, so that a difference is a comparison.

Where the desired state leaves something open (the MAC of a veth's host end), the observation does too. A veth's far
end is looked at in its sandbox: a wrong namespace or a missing interface makes the link ``broken``, one that is down
or has another MTU makes the link differ, and SetLink mends both ends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from netagent.kernel import ovs
from netagent.kernel.apply import Workplace
from netagent.kernel.checksums import has_offload
from netagent.kernel.decode import LinkRecord
from netagent.kernel.inside import SandboxLook, as_address, as_route
from netagent.kernel.limits import observe_limits
from netagent.kernel.nftables import element_key
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.sandboxes import Sandboxes
from netagent.kernel.sysctl import read_sysctl
from netagent.kernel.uapi import NUD_PERMANENT
from netagent.model.address import Mac
from netagent.plan.desired import (
    HOST,
    ROUTE_PROTOCOL,
    Bridge,
    FdbEntry,
    Gretap,
    Ifb,
    InterfaceAddress,
    Kind,
    Link,
    Neighbour,
    Route,
    Ruleset,
    SourceRoute,
    State,
    SysctlName,
    Veth,
)

_UNKNOWN_VETH = Veth(sandbox="", interface="", peer_mac=Mac("00:00:00:00:00:00"))
_GRETAPS = {"gretap": 4, "ip6gretap": 6}
_TUNNELS = frozenset({"vxlan", *_GRETAPS})
_KINDS = frozenset({"bridge", "vxlan", "gretap", "ip6gretap", "veth", "ifb"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    """The addresses and our routes of one namespace, by interface index."""

    addresses: Mapping[int, frozenset[InterfaceAddress]]
    routes: Mapping[int, frozenset[Route]]


def observe(place: Workplace, desired: State) -> State:
    """Return all that is ours, and the present values of the settings that ``desired`` names."""
    records = place.rtnl.links()
    names = {record.index: record.name for record in records}
    ours = [record for record in records if record.is_ours and not record.is_dying]
    own_indices = {record.index for record in ours}
    tables = _read_tables(place.rtnl, names, HOST, desired)
    shapers, redirects = observe_limits(place.rtnl, ours, desired.shapers)
    tunnels = [record for record in ours if record.kind in _TUNNELS or ovs.is_port(record.name)]
    flows = {record.name: ovs.flows(record.name) for record in tunnels if ovs.is_port(record.name)}
    state = State(
        addresses=frozenset().union(*(group for index, group in tables.addresses.items() if index in own_indices)),
        routes=frozenset().union(*tables.routes.values()),
        neighbours=frozenset(entry for record in tunnels for entry in _neighbours(place.rtnl, record)),
        fdb=frozenset().union(
            *(_fdb(place.rtnl, record) for record in tunnels if record.name not in flows),
            *(found.entries for found in flows.values()),
        ),
        tunnel_sources=frozenset().union(*(found.sources for found in flows.values())),
        shapers=shapers,
        redirects=redirects,
        sysctls=_sysctls(desired),
        ruleset=place.firewall.observe(desired.ruleset),
        admin=desired.admin if desired.admin and place.firewall.has_admin_chains() else (),
    )
    return _with_links(place, state, ours, names, desired)


def own_links(rtnl: Rtnl) -> frozenset[str]:
    """Return the names of all links of ours, without those that wait for their deletion."""
    return frozenset(record.name for record in rtnl.links() if record.is_ours and not record.is_dying)


def own_routes(rtnl: Rtnl) -> frozenset[Route]:
    """Return our routes in the host's own table; those of a device that is gone by now are left out."""
    records = rtnl.routes(protocol=ROUTE_PROTOCOL)
    devices = {index: rtnl.link_at(index) for index in {record.index for record in records} if index}
    names = {index: device.name for index, device in devices.items() if device is not None}
    return frozenset(as_route(record, names[record.index], HOST) for record in records if record.index in names)


def observe_endpoint(place: Workplace, desired: State) -> State:
    """Return what is there of one endpoint: its link, its sandbox's side, its host routes and its elements.

    The table's structure is reported as desired, because one endpoint's part knows only its elements.
    """
    place.rtnl.forget()
    found = (place.rtnl.link(name) for name in desired.links)
    ours = [record for record in found if record is not None and record.is_ours]
    names = {record.index: record.name for record in ours}
    for record in ours:
        master = place.rtnl.link_at(record.master) if record.master else None
        if master is not None:
            names[master.index] = master.name
    # All queues of the host are listed at once, so only where there should be one.
    limited = ours if desired.shapers else ()
    shapers, redirects = observe_limits(place.rtnl, limited, desired.shapers)
    state = State(
        routes=_host_routes(place.rtnl, desired),
        shapers=shapers,
        redirects=redirects,
        sysctls=_sysctls(desired),
        ruleset=_elements(place, desired),
    )
    return _with_links(place, state, ours, names, desired)


def _with_links(
    place: Workplace, state: State, ours: Iterable[LinkRecord], names: Mapping[int, str], desired: State
) -> State:
    links: dict[str, Link] = {}
    broken: dict[str, str] = {}
    addresses, routes = set(state.addresses), set(state.routes)
    source_routes: set[SourceRoute] = set()
    with Sandboxes(place.home) as sandboxes:
        look = SandboxLook(sandboxes, desired)
        switched = ovs.kinds() if any(ovs.is_port(record.name) for record in ours) else {}
        for record in ours:
            wanted = desired.links.get(record.name)
            link = _observed_link(record, wanted, names)
            if ovs.is_port(record.name):
                if record.name in switched:
                    link = replace(link, kind=switched[record.name])
                else:
                    broken[record.name] = "Open vSwitch has no such tunnel"
            elif record.kind not in _KINDS:
                broken[record.name] = f"it is of the kind {record.kind!r}"
            elif wanted is not None and isinstance(wanted.kind, Veth) and wanted.kind.is_given_away:
                pass
            elif wanted is not None and isinstance(wanted.kind, Veth) and record.kind == "veth":
                link, reason = look.far_end(record, link, wanted.kind)
                if reason:
                    broken[record.name] = reason
                else:
                    addresses |= look.addresses(wanted.kind)
                    routes |= look.routes(wanted.kind)
                    source_routes |= look.source_routes(wanted.kind)
            links[record.name] = link
    return replace(
        state,
        links=MappingProxyType(links),
        broken=MappingProxyType(broken),
        addresses=frozenset(addresses),
        routes=frozenset(routes),
        source_routes=frozenset(source_routes),
    )


def _observed_link(record: LinkRecord, wanted: Link | None, names: Mapping[int, str]) -> Link:
    is_open = record.kind in ("veth", "ifb") if wanted is None else wanted.mac is None
    return Link(
        name=record.name,
        kind=_kind(record, wanted),
        mtu=record.mtu,
        alias=record.alias,
        mac=None if is_open else record.mac,
        master=names.get(record.master),
        up=record.up,
        # Asked for by name, one by one: only where it matters.
        offload=has_offload(record.name) if wanted is not None and wanted.offload is False else None,
    )


def _kind(record: LinkRecord, wanted: Link | None) -> Kind:
    if record.kind == "bridge":
        return Bridge(learns_from_groups=record.learns_from_groups)
    if record.kind == "ifb":
        return Ifb()
    if record.vxlan is not None:
        return record.vxlan
    if record.kind in _GRETAPS:
        return Gretap(version=_GRETAPS[record.kind])
    if wanted is None or not isinstance(wanted.kind, Veth):
        return _UNKNOWN_VETH
    return replace(wanted.kind, hairpin=record.hairpin)


def _read_tables(rtnl: Rtnl, names: Mapping[int, str], where: str, desired: State) -> _Tables:
    addresses: dict[int, set[InterfaceAddress]] = {}
    for found in rtnl.addresses():
        if found.index not in names:
            continue
        address = as_address(found, names[found.index], where)
        # Every interface gives itself a link-local IPv6 address; of these only the desired ones are ours.
        if address in desired.addresses or not (found.address.is_link_local and found.address.version == 6):
            addresses.setdefault(found.index, set()).add(address)
    routes: dict[int, set[Route]] = {}
    for record in rtnl.routes(protocol=ROUTE_PROTOCOL):
        if record.index not in names:
            continue
        routes.setdefault(record.index, set()).add(as_route(record, names[record.index], where))
    return _Tables(
        addresses={index: frozenset(group) for index, group in addresses.items()},
        routes={index: frozenset(group) for index, group in routes.items()},
    )


def _host_routes(rtnl: Rtnl, desired: State) -> frozenset[Route]:
    wanted = frozenset(route for route in desired.routes if route.where == HOST)
    if not wanted:
        return wanted
    indices = {rtnl.index(route.device): route.device for route in wanted}
    names = {index: name for index, name in indices.items() if index is not None}
    return frozenset().union(*_read_tables(rtnl, names, HOST, desired).routes.values()) & wanted


def _neighbours(rtnl: Rtnl, tunnel: LinkRecord) -> Iterable[Neighbour]:
    for record in rtnl.neighbours(tunnel.index):
        if record.state & NUD_PERMANENT and record.address is not None and record.mac is not None:
            yield Neighbour(device=tunnel.name, address=record.address, mac=record.mac)


def _fdb(rtnl: Rtnl, tunnel: LinkRecord) -> Iterable[FdbEntry]:
    for record in rtnl.neighbours(tunnel.index, bridge=True):
        if record.state & NUD_PERMANENT and record.address is not None and record.mac is not None:
            yield FdbEntry(device=tunnel.name, mac=record.mac, destination=record.address)


def _sysctls(desired: State) -> Mapping[SysctlName, str]:
    values = {name: read_sysctl(name) for name in desired.sysctls}
    return MappingProxyType({name: value for name, value in values.items() if value is not None})


def _elements(place: Workplace, desired: State) -> Ruleset | None:
    if desired.ruleset is None:
        return None
    present: dict[str, frozenset[str]] = {}
    for name, wanted in desired.ruleset.elements.items():
        keys = {element_key(element) for element in wanted}
        found = frozenset(e for e in place.firewall.elements(name) if element_key(e) in keys)
        if found:
            present[name] = found
    return replace(desired.ruleset, elements=MappingProxyType(present))
