"""A tunnel that tests itself: peers are asked for an echo through the overlay, small and as large as packets get.

A peer is asked when it is new to a network, when anything changed that its way depends on (its record, its block, the
network's MTU or driver), and from time to time although nothing has. A few are asked at a time, whatever the number of
hosts. What is found is a log line, an event, and part of ``netagent host ls``; and a way that does not carry the
network's largest packets gets routes that say how large they may be, until it does. A container that sends larger ones
is told so by its host, and sends smaller ones from then on. Where checksums that are left to a network device arrive
wrong, the network's tunnel device leaves it none any more.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from types import MappingProxyType

from netagent.errors import NetagentError
from netagent.model.ids import HostId, NetworkId
from netagent.model.paths import Paths
from netagent.services.context import Context
from netagent.services.ways import SMALLEST, Way, WayId, Ways, recall_limits
from netagent.store import keys

log = logging.getLogger("netagent.probing")

WAYS_AT_ONCE = 16
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 30.0
REVISIT_S = 120.0
"""How often some of those in order are asked again: with n ways each is asked every n / 16 times as long."""
FAILURES_TO_BELIEVE = 3
"""A peer's record is there before its kernel is ready, and a single large packet may be lost by chance."""
SIZES_AT_ONCE = 24
"""Sizes of one way that are tried in one round: three rounds find the largest among thousands."""

UNREACHABLE = "does not answer"
SPOILED = "checksums left to a network device arrive wrong"
SWITCHED_OFF = "checksum offload is off: what was left to a network device arrived wrong"


class ProbingService:
    """One per agent."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wake = asyncio.Event()
        self._ways = Ways()
        self._failures: Counter[WayId] = Counter()
        self._spoiled: Counter[WayId] = Counter()
        """How often checksums arrived wrong, one time after the other."""
        self._wrong: dict[WayId, str] = {}
        self._has_news = False
        """Whether what is wrong has changed since it was shown."""
        self._narrow: dict[WayId, int] = {}
        self._corrupting: set[NetworkId] = set()

    def store_changed(self, changed: frozenset[str]) -> None:
        """Look soon whether there are new ways to ask."""
        if any(key.startswith((keys.NETWORKS, keys.BLOCKS, keys.HOSTS, keys.LIVE)) for key in changed):
            self._wake.set()

    async def recall(self) -> None:
        """Take over the limits that an earlier life found, before the kernel is brought to anything without them."""
        try:
            routes = await self._context.kernel.own_routes()
        except NetagentError as error:
            log.warning("limits of ways to peers are found anew: %s", error)
            return
        self._narrow = recall_limits(self._context.snapshot(), routes)
        # Believed already: what is not so any more is found out at the first answer.
        self._failures = Counter(dict.fromkeys(self._narrow, FAILURES_TO_BELIEVE - 1))
        self._show_paths()

    async def run(self) -> None:
        """Ask until cancelled; when all is in order, wait for the store to change or for the next round."""
        pause_s = FIRST_PAUSE_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
                    pause_s = 0.0
                    # Those who hear of a change at the same time as this host make ready first.
                    await asyncio.sleep(FIRST_PAUSE_S)
            self._wake.clear()
            try:
                is_waiting = await self.step()
            except NetagentError as error:
                log.warning("the ways to peers could not be tested: %s", error)
                is_waiting = True
            if is_waiting:
                pause_s = min(2 * pause_s, LAST_PAUSE_S) if 0 < pause_s <= LAST_PAUSE_S else FIRST_PAUSE_S
            else:
                pause_s = REVISIT_S

    async def step(self) -> bool:
        """Ask some: first those that have not been found in order; tell whether any of these are left."""
        self._look()
        asked = self._ways.next(WAYS_AT_ONCE, lambda way: (self._failures[way.id], way.host.id, str(way.target)))
        if asked:
            await self._ask(asked)
        self._publish()
        return bool(self._ways.waiting)

    def _look(self) -> None:
        """Find out which ways there are, if anything has changed, and forget the others."""
        snapshot = self._context.snapshot()
        dropped = self._ways.follow(snapshot)
        # What packets a way carries does not depend on an agent that answers, or lives.
        gone = self._narrow.keys() - self._ways.known.keys()
        for key in gone:
            del self._narrow[key]
        for key in {*dropped, *gone}:
            for found in (self._failures, self._spoiled, self._wrong):
                self._has_news |= found.pop(key, None) is not None
        self._has_news |= not self._corrupting <= snapshot.networks.keys()
        self._corrupting &= snapshot.networks.keys()

    async def _ask(self, asked: Sequence[Way]) -> None:
        kernel = self._context.kernel
        there = await kernel.answering([(way.source, way.target) for way in asked])
        reached = [way for way in asked if way.target in there]
        sizes = {way.target: way.size for way in reached}
        large = await kernel.answering([(way.source, way.target) for way in reached], sizes=sizes)
        lossy = [way for way in reached if way.target not in large]
        limits = await self._search([way for way in lossy if self._failures[way.id] + 1 >= FAILURES_TO_BELIEVE])
        spoiled = await kernel.corrupted([(way.source, way.target) for way in reached])
        for way in asked:
            if way.target in spoiled:
                self._spoiled[way.id] += 1
            else:
                self._spoiled.pop(way.id, None)
            if way.target not in there:
                self._note_failure(way, UNREACHABLE)
            elif way.target not in large:
                self._note_failure(way, _lossy(way, limits.get(way.id)), limit=limits.get(way.id))
            elif way.target in spoiled:
                self._narrow.pop(way.id, None)
                self._note_failure(way)
            else:
                self._note_order(way)

    async def _search(self, ways: Sequence[Way]) -> dict[WayId, int]:
        """Return the largest packets in bytes that some ways carry; those that do not carry small ones are left out."""
        low = {way.id: SMALLEST[way.target.version] - 1 for way in ways}
        high = {way.id: way.mtu for way in ways}
        unsettled = list(ways)
        while unsettled:
            sizes = {way.id: _between(low[way.id], high[way.id]) for way in unsettled}
            found = await self._context.kernel.largest_answered(
                [(way.source, way.target, [size - way.headers for size in sizes[way.id]]) for way in unsettled]
            )
            for way in unsettled:
                best = found[way.target] + way.headers if way.target in found else low[way.id]
                high[way.id] = min((size for size in sizes[way.id] if size > best), default=high[way.id])
                low[way.id] = best
            unsettled = [way for way in unsettled if high[way.id] - low[way.id] > 1]
        return {way.id: low[way.id] for way in ways if low[way.id] >= SMALLEST[way.target.version]}

    def _note_order(self, way: Way) -> None:
        self._ways.mark_in_order(way)
        self._failures.pop(way.id, None)
        self._narrow.pop(way.id, None)
        if self._wrong.pop(way.id, None) is not None:
            self._has_news = True
            self._tell(way, "answers")

    def _note_failure(self, way: Way, *found: str, limit: int | None = None) -> None:
        self._ways.mark_waiting(way)
        self._failures[way.id] += 1
        if self._failures[way.id] < FAILURES_TO_BELIEVE:
            return
        if limit is not None:
            self._narrow[way.id] = limit
        if self._spoiled[way.id] >= FAILURES_TO_BELIEVE:
            found = (*found, SPOILED)
            if way.network.driver != "route" or way.network.fallback:
                self._corrupting.add(way.network.id)
                self._has_news = True
        text = ", ".join(found)
        if text and self._wrong.get(way.id) != text:
            self._wrong[way.id] = text
            self._has_news = True
            self._tell(way, text)

    def _tell(self, way: Way, found: str) -> None:
        network = way.network
        log.warning("host %s through network %s (%s): %s", way.host.name, network.name, network.driver, found)
        facts = {"name": way.host.name, "network": network.name, "driver": network.driver, "result": found}
        self._context.events.publish("host", "path", way.host.id, **facts)

    def _publish(self) -> None:
        """Show what was found, and have the routes follow it."""
        if self._has_news:
            self._has_news = False
            self._show_problems()
        self._show_paths()

    def _show_problems(self) -> None:
        lines: dict[HostId, list[str]] = {}
        found = [(self._ways.known[key], text) for key, text in self._wrong.items()]
        for way, text in sorted(found, key=lambda item: (item[0].network.name, item[0].target.version)):
            line = f"{way.network.name}: {text}"
            if line not in lines.setdefault(way.host.id, []):
                lines[way.host.id].append(line)
        networks = self._context.snapshot().networks
        off = [f"{networks[identity].name}: {SWITCHED_OFF}" for identity in self._corrupting]
        knowledge = self._context.knowledge
        own = {knowledge.host.id: tuple(sorted(off))} if off else {}
        knowledge.path_problems = {host: tuple(texts) for host, texts in lines.items()} | own

    def _show_paths(self) -> None:
        knowledge = self._context.knowledge
        paths = Paths(narrow=MappingProxyType(dict(self._narrow)), corrupting=frozenset(self._corrupting))
        if knowledge.paths != paths:
            knowledge.paths = paths
            self._context.engine.follow_snapshot()


def _lossy(way: Way, limit: int | None) -> str:
    return f"loses packets of {way.mtu} bytes" + (f", carries {limit}" if limit is not None else "")


def _between(low: int, high: int) -> list[int]:
    """Return sizes to try above ``low`` and below ``high``, evenly apart."""
    count = min(SIZES_AT_ONCE, high - low - 1)
    return sorted({low + (high - low) * step // (count + 1) for step in range(1, count + 1)} - {low})
