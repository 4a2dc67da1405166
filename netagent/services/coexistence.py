"""Living beside other people's firewalls: our marks in them are brought to what this host needs, and kept there.

A look is taken at the start, whenever another program changes its chains or an address of the machine, and as often as
the engine makes a pass without a reason. One that failed, or was told that a program is busy, is taken again with
growing pauses. What other rules block all the same is told once per change.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from netagent.errors import NetagentError
from netagent.firewall.marks import INSIDE, Needs, Presence
from netagent.plan.desired import LINK_PREFIX
from netagent.plan.names import bridge_name
from netagent.reconcile.engine import RESYNC_S
from netagent.reconcile.ports import ForeignFirewall
from netagent.services.context import Context
from netagent.services.exposure import ExposureService, tunnel_kinds

log = logging.getLogger("netagent.coexist")

SETTLE_S = 0.1
"""How long a look waits for more of the same: a reload is many transactions."""

PAUSE_S = 0.4
"""The least time between two looks, so that a program which never rests does not keep us busy."""

FIRST_RETRY_S = 1.0
"""The pause after a look that failed; it doubles up to the time between passes of the engine."""


class Coexistence:
    """Keeps marks in those ``firewalls`` that are ``allowed`` by name, and out of the others."""

    def __init__(
        self,
        context: Context,
        exposure: ExposureService,
        firewalls: Sequence[ForeignFirewall],
        allowed: frozenset[str],
    ) -> None:
        self._context = context
        self._exposure = exposure
        self._firewalls = firewalls
        self._allowed = allowed
        self._wake = asyncio.Event()
        self._suspected: frozenset[str] = frozenset()
        self._told: frozenset[str] = frozenset()

    def request(self) -> None:
        """Ask for a look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Look when asked to, until cancelled."""
        retry_s = FIRST_RETRY_S
        pause_s = RESYNC_S
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            await asyncio.sleep(SETTLE_S)
            self._wake.clear()
            if await self.look():
                pause_s, retry_s = RESYNC_S, FIRST_RETRY_S
            else:
                pause_s, retry_s = retry_s, min(2 * retry_s, RESYNC_S)
            await asyncio.sleep(PAUSE_S)

    async def look(self) -> bool:
        """Bring the marks up to date and tell what is blocked all the same; failures are logged, and False returned."""
        try:
            presence = await self._context.kernel.foreign_presence()
            needs = await self._needs()
            done = [
                await self._mark(firewall, needs if firewall.name in self._allowed else None, presence)
                for firewall in self._firewalls
            ]
            await self._tell_blocked()
        except NetagentError as error:
            log.error("other firewalls could not be looked at: %s", error)
            return False
        return all(done)

    async def _mark(self, firewall: ForeignFirewall, needs: Needs | None, presence: Presence) -> bool:
        try:
            done = await asyncio.to_thread(partial(firewall.reconcile, needs, presence))
        except NetagentError as error:
            log.error("%s: %s", firewall.name, error)
            return False
        for line in done:
            log.info("%s", line)
            self._context.events.publish("host", "coexist", self._context.host.id, firewall=firewall.name, marks=line)
        return True

    async def _needs(self) -> Needs:
        facts = await self._context.kernel.facts()
        networks = [n for n in self._context.snapshot().networks.values() if n.has_endpoints]
        # A bridge that somebody else has made keeps its own name.
        named = sorted({name for name in map(bridge_name, networks) if not name.startswith(LINK_PREFIX)})
        return Needs(
            inside=(INSIDE, *named),
            outside=tuple(name for name in facts.outside if name not in named),
            tunnels=tunnel_kinds(networks, self._context.host),
        )

    async def _tell_blocked(self) -> None:
        """Tell what is blocked at two looks in a row: a firewall that is reloaded blocks everything for a moment."""
        blocked = frozenset(await self._exposure.warnings())
        fresh = (blocked & self._suspected) - self._told
        for warning in sorted(fresh):
            log.warning("%s", warning)
        self._told = (self._told & blocked) | fresh
        if blocked - self._suspected:
            self.request()
        self._suspected = blocked
