"""The ways from this host to its peers, as probing asks them: one for each network, peer and IP version."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import TypeAlias

from netagent.model.address import Address
from netagent.model.block import Block
from netagent.model.host import Host
from netagent.model.ids import HostId, NetworkId
from netagent.model.network import Network, Scope
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import HOST, Route
from netagent.plan.peers import peers_of
from netagent.plan.render import network_mtu, networks_here
from netagent.plan.scope import changed_peers

WayId: TypeAlias = tuple[NetworkId, HostId, int]

SMALLEST = {4: 576, 6: 1280}
"""Bytes that every way of an IP version should carry (RFC 791, 3.1; RFC 8200, 5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From this host to a peer through one network, in one IP version. Without ``is_live`` nobody need answer."""

    network: Network
    host: Host
    source: Address
    target: Address
    mtu: int
    is_live: bool

    @property
    def id(self) -> WayId:
        """What stays the same when addresses and MTU change."""
        return (self.network.id, self.host.id, self.target.version)

    @property
    def headers(self) -> int:
        """Octets before an echo's payload: IP and ICMP."""
        return (20 if self.target.version == 4 else 40) + 8

    @property
    def size(self) -> int:
        """Octets of the largest packet's payload."""
        return self.mtu - self.headers


class Ways:
    """The ways that there are. Live ones wait until they are found in order, and those in order for their next turn."""

    def __init__(self) -> None:
        self.known: dict[WayId, Way] = {}
        self.waiting: dict[WayId, Way] = {}
        self._in_order: dict[WayId, Way] = {}
        """The one that was asked last is the last."""
        self._seen: Snapshot | None = None

    def follow(self, snapshot: Snapshot) -> Collection[WayId]:
        """Find out which ways there are now; return those that are gone, or that nobody need answer any more.

        Only hosts that have changed since the last time are looked at, if that is all that has.
        """
        before, self._seen = self._seen, snapshot
        if before is snapshot:
            return ()
        hosts = None if before is None else _changed_hosts(before, snapshot)
        old = tuple(self.known) if hosts is None else self._ways_to(hosts, snapshot)
        fresh = {way.id: way for way in ways_to_peers(snapshot, hosts)}
        for key in old:
            if key not in fresh:
                del self.known[key]
        self.known.update(fresh)
        dropped = [key for key in {*old, *fresh} if not (key in fresh and fresh[key].is_live)]
        for key in dropped:
            self.waiting.pop(key, None)
            self._in_order.pop(key, None)
        for key, way in fresh.items():
            if way.is_live and self._in_order.get(key) != way:
                self.mark_waiting(way)
        return dropped

    def _ways_to(self, hosts: Iterable[HostId], snapshot: Snapshot) -> list[WayId]:
        keys = ((network, host, version) for network in snapshot.networks for host in hosts for version in SMALLEST)
        return [key for key in keys if key in self.known]

    def next(self, count: int, order: Callable[[Way], tuple[int, str, str]]) -> list[Way]:
        """Return up to ``count`` ways to ask: first those that wait, in this ``order``."""
        first = nsmallest(count, self.waiting.values(), key=order)
        return [*first, *islice(self._in_order.values(), count - len(first))]

    def mark_in_order(self, way: Way) -> None:
        """Note that a way has been found in order; its next turn comes after all others'."""
        self.waiting.pop(way.id, None)
        self._in_order.pop(way.id, None)
        self._in_order[way.id] = way

    def mark_waiting(self, way: Way) -> None:
        """Note that a way is not known to be in order."""
        self._in_order.pop(way.id, None)
        self.waiting[way.id] = way


def _changed_hosts(before: Snapshot, after: Snapshot) -> frozenset[HostId] | None:
    """Return the hosts whose ways may be other ones; None if all may be."""
    changed = changed_peers(before, after)
    return None if changed is None else changed | after.live.changed(before.live)


def ways_to_peers(snapshot: Snapshot, among: Collection[HostId] | None = None) -> Iterator[Way]:
    """Yield the ways to all peers, or to those ``among``.

    While a network is moved, its peers are asked by those who move it.
    """
    for network in networks_here(snapshot):
        if network.scope is Scope.LOCAL or network.before is not None:
            continue
        mtu = network_mtu(network, snapshot)
        own = snapshot.own_blocks_in(network.id)
        for peer in peers_of(snapshot, network, among):
            for source, target in address_pairs(own, peer.blocks):
                yield Way(
                    network=network,
                    host=peer.host,
                    source=source,
                    target=target,
                    mtu=mtu,
                    is_live=peer.host.id in snapshot.live,
                )


def recall_limits(snapshot: Snapshot, routes: Iterable[Route]) -> dict[WayId, int]:
    """Return what routes of an earlier life say of how large packets may be."""
    mtus = {route.destination: route.mtu for route in routes if route.where == HOST and route.mtu}
    if not mtus:
        return {}
    return {
        (network.id, owner, block.prefix.version): mtus[block.prefix]
        for network in networks_here(snapshot)
        for owner, holding in snapshot.claims_in(network.id).holdings.items()
        for block in holding.blocks
        if owner != snapshot.host.id and block.prefix in mtus
    }


def address_pairs(own: Iterable[Block], theirs: Iterable[Block]) -> Iterator[tuple[Address, Address]]:
    """Yield the own address of two holders of blocks, one pair for each IP version in which both have one."""
    sources, targets = _own_addresses(own), _own_addresses(theirs)
    yield from ((sources[version], targets[version]) for version in sources.keys() & targets.keys())


def _own_addresses(blocks: Iterable[Block]) -> dict[int, Address]:
    return {block.own_address.version: block.own_address for block in blocks if block.own_address is not None}
