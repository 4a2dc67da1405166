"""Follows what this machine is on the network between hosts: underlay addresses, MTU, and what it routes itself.

Peers follow by the host's record. An address that is gone without another in its place stays in the record: an
interface that is configured anew has none for a moment, and nobody could be reached by none.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from netagent.errors import NetagentError
from netagent.model.host import Host, HostFacts
from netagent.services.context import Context

log = logging.getLogger("netagent.uplinks")

SETTLE_S = 0.1
"""How long a look waits for more of the same: an address is exchanged by two changes."""

PAUSE_S = 0.9
"""The least time between two looks."""


class UplinkService:
    """One per agent. ``describe`` makes this host's record out of what the machine's network looks like."""

    def __init__(self, context: Context, describe: Callable[[HostFacts], Host]) -> None:
        self._context = context
        self._describe = describe
        self._wake = asyncio.Event()

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
        after = self._describe(await self._context.kernel.facts())
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
