"""A tunnel that tests itself: peers are asked for an echo through the overlay, small and as large as packets get.

A peer is asked when it is new to a network, or when anything changed that its way depends on: its record, its block,
the network's MTU or driver. A few are asked at a time, whatever the number of hosts; one that is in order is not
asked again. What is found is a log line, an event, and part of ``netagent host ls``; it changes nothing by itself.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from netagent.errors import NetagentError
from netagent.model.address import Address
from netagent.model.block import Block
from netagent.model.host import Host
from netagent.model.ids import HostId
from netagent.model.network import Scope
from netagent.model.snapshot import Snapshot
from netagent.plan.peers import peers_of
from netagent.plan.render import network_mtu, networks_here
from netagent.services.context import Context
from netagent.store import keys

log = logging.getLogger("netagent.probing")

WAYS_AT_ONCE = 16
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 30.0
FAILURES_TO_BELIEVE = 3
"""A peer's record is there before its kernel is ready, and a single large packet may be lost by chance."""

UNREACHABLE = "does not answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From this host to a peer through one network, in one IP version."""

    network: str
    driver: str
    host: Host
    source: Address
    target: Address
    mtu: int

    @property
    def size(self) -> int:
        """Octets of the largest packet's payload behind IP and ICMP headers."""
        return self.mtu - (20 if self.target.version == 4 else 40) - 8


class ProbingService:
    """One per agent."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wake = asyncio.Event()
        self._in_order: set[Way] = set()
        self._failures: Counter[Way] = Counter()
        self._wrong: dict[Way, str] = {}

    def store_changed(self, changed: frozenset[str]) -> None:
        """Look soon whether there are new ways to ask."""
        if any(key.startswith((keys.NETWORKS, keys.BLOCKS, keys.HOSTS, keys.LIVE)) for key in changed):
            self._wake.set()

    async def run(self) -> None:
        """Ask until cancelled; when all is in order, wait for the store to change."""
        pause_s: float | None = FIRST_PAUSE_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
                    pause_s = None
                    # Those who hear of a change at the same time as this host make ready first.
                    await asyncio.sleep(FIRST_PAUSE_S)
            self._wake.clear()
            try:
                is_waiting = await self.step()
            except NetagentError as error:
                log.warning("the ways to peers could not be tested: %s", error)
                is_waiting = True
            pause_s = min(2 * pause_s if pause_s else FIRST_PAUSE_S, LAST_PAUSE_S) if is_waiting else None

    async def step(self) -> bool:
        """Ask some of those that have not been found in order; tell whether there are any left."""
        ways = set(_ways(self._context.snapshot()))
        self._in_order &= ways
        self._failures = Counter({way: count for way, count in self._failures.items() if way in ways})
        self._wrong = {way: text for way, text in self._wrong.items() if way in ways}
        waiting = sorted(ways - self._in_order, key=lambda way: (self._failures[way], way.host.id, str(way.target)))
        asked = waiting[:WAYS_AT_ONCE]
        if asked:
            kernel = self._context.kernel
            there = await kernel.answering([(way.source, way.target) for way in asked])
            sizes = {way.target: way.size for way in asked if way.target in there}
            large = await kernel.answering([(w.source, w.target) for w in asked if w.target in there], sizes=sizes)
            for way in asked:
                lost = f"loses packets of {way.mtu} bytes"
                self._note(way, "" if way.target in large else lost if way.target in there else UNREACHABLE)
        self._publish()
        return bool(ways - self._in_order)

    def _note(self, way: Way, found: str) -> None:
        if not found:
            self._in_order.add(way)
            del self._failures[way]
            if self._wrong.pop(way, None) is not None:
                self._tell(way, "answers")
            return
        self._failures[way] += 1
        if self._failures[way] >= FAILURES_TO_BELIEVE and self._wrong.get(way) != found:
            self._wrong[way] = found
            self._tell(way, found)

    def _tell(self, way: Way, found: str) -> None:
        log.warning("host %s through network %s (%s): %s", way.host.name, way.network, way.driver, found)
        facts = {"name": way.host.name, "network": way.network, "driver": way.driver, "result": found}
        self._context.events.publish("host", "path", way.host.id, **facts)

    def _publish(self) -> None:
        found: dict[HostId, list[str]] = {}
        for way, text in sorted(self._wrong.items(), key=lambda item: (item[0].network, str(item[0].target))):
            line = f"{way.network}: {text}"
            if line not in found.setdefault(way.host.id, []):
                found[way.host.id].append(line)
        self._context.knowledge.path_problems = {host: tuple(lines) for host, lines in found.items()}


def _ways(snapshot: Snapshot) -> Iterator[Way]:
    """Yield the ways to all live peers; while a network is moved, its peers are asked by those who move it."""
    for network in networks_here(snapshot):
        if network.scope is Scope.LOCAL or network.before is not None:
            continue
        mtu = network_mtu(network, snapshot)
        own = _own_addresses(snapshot.own_blocks_in(network.id))
        for peer in peers_of(snapshot, network):
            theirs = _own_addresses(peer.blocks)
            for version in own.keys() & theirs.keys() if peer.host.id in snapshot.live else ():
                yield Way(
                    network=network.name,
                    driver=network.driver,
                    host=peer.host,
                    source=own[version],
                    target=theirs[version],
                    mtu=mtu,
                )


def _own_addresses(blocks: Iterable[Block]) -> dict[int, Address]:
    return {block.own_address.version: block.own_address for block in blocks if block.own_address is not None}
