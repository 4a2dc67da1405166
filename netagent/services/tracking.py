"""The kernel's table of tracked connections: whoever finds it full loses new connections, and nothing else says why.

What has an entry goes on (nf_conntrack_alloc and early_drop, net/netfilter/nf_conntrack_core.c), the agent's connection
to etcd among it, and its other doors are unix sockets, which are not tracked. New connections of containers to the
outside and to published ports are dropped. So an operator is told before: by an event, in the log and in
``netagent host ls``.
"""

import asyncio
import logging

from netagent.errors import NetagentError
from netagent.model.counters import TrackedConnections
from netagent.services.context import Context

log = logging.getLogger("netagent.tracking")

INTERVAL_S = 5.0
"""How often it is looked at: two numbers, read in some 50 us."""

ALARM = 0.8
"""The share of the table in use from which on there is trouble."""

RELIEF = 0.75
"""The share below which it is over: a table about to be full is not told again and again."""


class TrackingService:
    """One per agent."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._is_filling = False

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """Tell when the table begins to be full, and when it is not any more."""
        try:
            found = await self._context.kernel.tracked_connections()
        except NetagentError as error:
            log.debug("the table of tracked connections cannot be read: %s", error)
            return
        share = found.share if found is not None else 0.0
        was_filling, self._is_filling = self._is_filling, share >= (RELIEF if self._is_filling else ALARM)
        self._context.knowledge.host_problems = (_trouble(found),) if found is not None and self._is_filling else ()
        if self._is_filling is not was_filling and found is not None:
            self._tell(found)

    def _tell(self, found: TrackedConnections) -> None:
        if self._is_filling:
            log.warning("%s: raise net.netfilter.nf_conntrack_max, or find out who opens them", _trouble(found))
        else:
            log.info("connection tracking has room again: %d of %d", found.count, found.limit)
        result = "filling" if self._is_filling else "has room"
        host = self._context.host
        facts = {"name": host.name, "result": result, "count": str(found.count), "limit": str(found.limit)}
        self._context.events.publish("host", "conntrack", host.id, **facts)


def _trouble(found: TrackedConnections) -> str:
    return f"{found.count} of {found.limit} connections tracked, new ones are dropped at the limit"
