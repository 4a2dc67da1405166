"""A network's driver changed while it is in use: each host turns to a peer's new way once that answers.

While a network has a way ``before``, every host keeps both up and takes packets by both; its routes go by the old one.
When both are up it says so in its blocks' records, and asks each peer that has said so for an echo, from own address to
own address, which alone goes by the new way. A peer that answered in every family gets its routes by the new way. A
host that has turned to all its peers says so as well, and when all have, the way ``before`` is taken out of the
network's record (``services/publisher.py``).

A move that is called back asks nobody: no host has taken down the way that it goes back to.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress

from netagent.drivers.driver import Peer
from netagent.errors import NetagentError
from netagent.model.address import Address
from netagent.model.ids import HostId, NetworkId
from netagent.model.network import Network
from netagent.model.snapshot import Snapshot
from netagent.plan.peers import peers_of
from netagent.plan.render import networks_here
from netagent.services.context import Context
from netagent.services.ways import address_pairs
from netagent.store import keys

log = logging.getLogger("netagent.moving")

FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 10.0
"""Peers that have not answered are asked again with growing pauses, a new peer at once."""


class MovingService:
    """One per agent."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wake = asyncio.Event()

    def store_changed(self, changed: frozenset[str]) -> None:
        """Look soon whether a network is being moved, if that may be new."""
        if any(key.startswith((keys.NETWORKS, keys.BLOCKS, keys.HOSTS)) for key in changed):
            self._wake.set()

    async def run(self) -> None:
        """Ask peers of networks that are being moved, until cancelled; without one, wait for the store to change."""
        pause_s: float | None = FIRST_PAUSE_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
                    pause_s = None
            self._wake.clear()
            try:
                is_moving = await self.step()
            except NetagentError as error:
                # Nothing else may ask again: what the kernel refused once is no change of the store.
                is_moving = True
                log.warning("peers could not be asked by their new ways: %s", error)
            pause_s = min(2 * pause_s if pause_s else FIRST_PAUSE_S, LAST_PAUSE_S) if is_moving else None

    async def step(self) -> bool:
        """Ask the peers that have not answered yet; tell whether any network is still being moved."""
        snapshot = self._context.snapshot()
        moving = [network for network in networks_here(snapshot) if network.before is not None]
        current = {(network.id, network.moves) for network in moving}
        self._context.knowledge.forget_turned(current)
        if not current <= self._context.knowledge.prepared:
            in_place = await self._brought_up(moving)
            self._context.knowledge.prepared = frozenset((network.id, network.moves) for network in in_place)
            moving = in_place
        waiting = [
            (network, peer)
            for network in moving
            for peer in peers_of(snapshot, network)
            if not snapshot.has_turned(network, peer.host.id) and _is_prepared(network, peer)
        ]
        has_turned = False
        if waiting:
            pairs = [pair for network, peer in waiting for pair in _pairs(snapshot, network, peer)]
            has_turned = self._turn(snapshot, waiting, await self._context.kernel.answering(pairs))
        if moving:
            await self._settle(moving, has_turned=has_turned)
        return bool(current)

    async def _brought_up(self, moving: list[Network]) -> list[Network]:
        """Return those networks of which all is in the kernel now; what others lack is not theirs to wait for."""
        engine = self._context.engine
        try:
            await engine.reconcile()
        except NetagentError as error:
            found = [network for network in moving if engine.is_in_place(network.id)]
            if not found:
                raise
            log.debug("not all of the kernel is as it should be: %s", error)
            return found
        return moving

    def _turn(self, snapshot: Snapshot, waiting: list[tuple[Network, Peer]], answered: frozenset[Address]) -> bool:
        turned: set[tuple[NetworkId, int, HostId]] = set()
        for network, peer in waiting:
            asked = {target for _, target in _pairs(snapshot, network, peer)}
            if asked and asked <= answered:
                log.info("network %s: host %s answers by %s", network.name, peer.host.name, network.driver)
                turned.add((network.id, network.moves, peer.host.id))
        self._context.knowledge.turn(turned)
        return bool(turned)

    async def _settle(self, moving: list[Network], *, has_turned: bool) -> None:
        """Say that a move is made only when its routes are in the kernel: the peers take the old way down then."""
        if has_turned or self._context.engine.status.error is not None:
            moving = await self._brought_up(moving)
        snapshot = self._context.snapshot()
        made = {
            (network.id, network.moves)
            for network in moving
            if all(snapshot.has_turned(network, peer.host.id) for peer in peers_of(snapshot, network))
        }
        self._context.knowledge.made = frozenset(made)
        self._context.publish_records()


def _is_prepared(network: Network, peer: Peer) -> bool:
    """Tell whether a peer has both ways up. Before, it may answer by the new one and refuse its containers' packets."""
    return all(block.prepared == network.moves for block in peer.blocks)


def _pairs(snapshot: Snapshot, network: Network, peer: Peer) -> Iterator[tuple[Address, Address]]:
    """Yield this host's own address and a peer's, one pair for each family in which both have one."""
    return address_pairs(snapshot.own_blocks_in(network.id), peer.blocks)
