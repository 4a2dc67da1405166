"""Follows what this machine is on the network between hosts: underlay addresses, MTU, and what it routes itself.

Peers follow by the host's record. An address that is gone without another in its place stays in the record: an
interface that is configured anew has none for a moment, and nobody could be reached by none. Another interface is
believed after it has been the way out for some seconds: one whose link flaps comes back to what it was.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from netagent.errors import NetagentError
from netagent.model.address import Address
from netagent.model.host import Host, HostFacts
from netagent.services.context import Context

log = logging.getLogger("netagent.uplinks")

SETTLE_S = 0.1
"""How long a look waits for more of the same: an address is exchanged by two changes."""

PAUSE_S = 0.9
"""The least time between two looks."""

MOVE_S = 5.0
"""How long another interface must have led to the other hosts before peers are told of it."""


class UplinkService:
    """One per agent. ``describe`` makes this host's record out of what the machine's network looks like."""

    def __init__(self, context: Context, describe: Callable[[HostFacts], Host]) -> None:
        self._context = context
        self._describe = describe
        self._wake = asyncio.Event()
        self._candidate: tuple[str, tuple[Address, ...]] | None = None
        """Another interface and its addresses that this host may have moved to, at ``_since``."""
        self._since = 0.0

    def request(self) -> None:
        """Ask for a look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Look whenever asked, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(SETTLE_S)
            self._wake.clear()
            with suppress(NetagentError):
                await self.look()
            await asyncio.sleep(PAUSE_S)

    async def look(self) -> None:
        """Bring this host's record up to date with the machine."""
        before = self._context.host
        facts = await self._context.kernel.facts()
        after = self._describe(facts)
        if self._is_elsewhere(before, after) and not self._is_believed(after, facts):
            after = replace(before, routes=after.routes)
        kept = tuple(a for a in before.underlay if after.underlay_for(a.version) is None)
        if not after.underlay:
            after = replace(before, routes=after.routes)
        elif kept:
            after = replace(after, underlay=tuple(sorted((*after.underlay, *kept), key=lambda a: a.version)))
        if after == before:
            return
        if (after.underlay, after.mtu) != (before.underlay, before.mtu):
            addresses = ", ".join(map(str, after.underlay))
            log.warning("this host is now at %s, MTU %d", addresses, after.mtu)
            self._context.events.publish(
                "host", "move", after.id, name=after.name, addresses=addresses, mtu=str(after.mtu)
            )
        self._context.knowledge.host = after
        self._context.knowledge.invalidate()
        self._context.publish_records()
        self._context.engine.request()

    def _is_elsewhere(self, before: Host, after: Host) -> bool:
        """Tell whether another interface is the way to the others now; one that is back is no candidate any more."""
        if after.interface and before.interface and after.interface != before.interface:
            return True
        self._candidate = None
        return False

    def _is_believed(self, after: Host, facts: HostFacts) -> bool:
        """Tell whether the other interface has been it long enough; else have it looked at again when it has."""
        if after.interface not in facts.outside:
            # That of containers or guests: what leads to the others is gone, and may come back.
            self._candidate = None
            return False
        loop = asyncio.get_running_loop()
        candidate = after.interface, after.underlay
        if self._candidate != candidate:
            self._candidate, self._since = candidate, loop.time()
        left_s = self._since + MOVE_S - loop.time()
        if left_s > 0:
            loop.call_later(left_s, self.request)
        return left_s <= 0
