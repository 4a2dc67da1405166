"""What is inside sandboxes, as far as anything there could be desired.

Of each only what is wanted is asked for: the far end by its name, addresses and routes of the families that it should
have. Whatever else a container has in its namespace is its own affair.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from netagent.errors import InvalidRequest, NotFound
from netagent.kernel.decode import AddressRecord, LinkRecord, RouteRecord
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.sandboxes import Sandboxes
from netagent.kernel.source_routes import source_rules
from netagent.plan.desired import HOST, ROUTE_PROTOCOL, InterfaceAddress, Link, Route, SourceRoute, State, Veth

_Placed = TypeVar("_Placed", InterfaceAddress, Route, SourceRoute)


class SandboxLook:
    """Looks into the sandboxes of desired veth pairs, reading of each once what could be desired of it."""

    def __init__(self, sandboxes: Sandboxes, desired: State) -> None:
        self._sandboxes = sandboxes
        self._desired = desired
        self._addresses = _by_place(desired.addresses)
        self._routes = _by_place(desired.routes)
        self._source_routes = _by_place(desired.source_routes)
        self._peers: dict[tuple[str, str], LinkRecord | None] = {}
        self._present_addresses: dict[str, list[AddressRecord]] = {}
        self._present_routes: dict[str, list[RouteRecord]] = {}

    def far_end(self, record: LinkRecord, link: Link, kind: Veth) -> tuple[Link, str]:
        """Return ``link`` with what its far end adds to it, and why the pair cannot be used, or ''."""
        try:
            peer = self._peer(kind)
        except (NotFound, InvalidRequest) as error:
            return link, error.message
        if peer is None or peer.kind != "veth" or (peer.peer, peer.index) != (record.index, record.peer):
            return link, f"interface {kind.interface} is missing in {kind.sandbox}"
        if peer.mac != kind.peer_mac:
            return link, f"interface {kind.interface} in {kind.sandbox} has the MAC {peer.mac}, not {kind.peer_mac}"
        wanted_mtu = self._desired.links[link.name].mtu
        return replace(link, up=link.up and peer.up, mtu=peer.mtu if link.mtu == wanted_mtu else link.mtu), ""

    def addresses(self, kind: Veth) -> frozenset[InterfaceAddress]:
        """Return the desired addresses that the far end has."""
        wanted = self._addresses.get(kind.sandbox, frozenset())
        peer = self._peer(kind)
        if not wanted or peer is None:
            return frozenset()
        if kind.sandbox not in self._present_addresses:
            versions = {address.address.version for address in wanted}
            self._present_addresses[kind.sandbox] = self._rtnl(kind).addresses(versions=versions)
        present = self._present_addresses[kind.sandbox]
        return wanted & {as_address(r, kind.interface, kind.sandbox) for r in present if r.index == peer.index}

    def routes(self, kind: Veth) -> frozenset[Route]:
        """Return the desired routes that lead through the far end."""
        wanted = self._routes.get(kind.sandbox, frozenset())
        peer = self._peer(kind)
        if not wanted or peer is None:
            return frozenset()
        if kind.sandbox not in self._present_routes:
            versions = {route.destination.version for route in wanted}
            self._present_routes[kind.sandbox] = self._rtnl(kind).routes(protocol=ROUTE_PROTOCOL, versions=versions)
        present = self._present_routes[kind.sandbox]
        return wanted & {as_route(r, kind.interface, kind.sandbox) for r in present if r.index == peer.index}

    def source_routes(self, kind: Veth) -> frozenset[SourceRoute]:
        """Return the desired source routes through the far end whose rules are there."""
        here = self._source_routes.get(kind.sandbox, frozenset())
        wanted = [route for route in here if route.device == kind.interface]
        if not wanted:
            return frozenset()
        rules = source_rules(self._rtnl(kind))
        return frozenset(r for r in wanted if (r.address, r.to, r.table) in rules)

    def _peer(self, kind: Veth) -> LinkRecord | None:
        rtnl = self._rtnl(kind)
        place = kind.sandbox, kind.interface
        if place not in self._peers:
            self._peers[place] = rtnl.link(kind.interface)
        return self._peers[place]

    def _rtnl(self, kind: Veth) -> Rtnl:
        return self._sandboxes.open(kind.sandbox, kind.sandbox_inode).rtnl


def _by_place(items: Iterable[_Placed]) -> Mapping[str, frozenset[_Placed]]:
    """Return what is desired in each sandbox."""
    groups: dict[str, set[_Placed]] = {}
    for item in items:
        if item.where != HOST:
            groups.setdefault(item.where, set()).add(item)
    return {where: frozenset(group) for where, group in groups.items()}


def as_address(record: AddressRecord, device: str, where: str) -> InterfaceAddress:
    """Return an address in the words of the plan."""
    return InterfaceAddress(
        device=device, address=record.address, length=record.length, where=where, connected=record.connected
    )


def as_route(record: RouteRecord, device: str, where: str) -> Route:
    """Return a route in the words of the plan."""
    return Route(
        destination=record.destination,
        device=device,
        gateway=record.gateway,
        source=record.source,
        onlink=record.onlink,
        encap=record.encap,
        mtu=record.mtu,
        where=where,
    )
