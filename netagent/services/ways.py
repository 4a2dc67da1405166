"""The ways from this host to its peers, as probing asks them: one for each network, peer and IP version."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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


def ways_to_peers(snapshot: Snapshot) -> Iterator[Way]:
    """Yield the ways to all peers; while a network is moved, its peers are asked by those who move it."""
    for network in networks_here(snapshot):
        if network.scope is Scope.LOCAL or network.before is not None:
            continue
        mtu = network_mtu(network, snapshot)
        own = snapshot.own_blocks_in(network.id)
        for peer in peers_of(snapshot, network):
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
