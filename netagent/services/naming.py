"""Keeps the DNS process told: which networks this host has, and the names of all endpoints in them.

Own endpoints come from the journal, the others' from the store. A host that is not live any more keeps its names for
a while, because an agent that restarts lets its lease go although its containers run on.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import suppress

from netagent.dns.client import NameServer
from netagent.dns.control import NameRecord, NetworkRecord
from netagent.errors import NetagentError
from netagent.model.endpoint import Endpoint
from netagent.model.ids import EndpointId, HostId, NetworkId, short
from netagent.model.network import DEFAULT_NETWORK, Network
from netagent.model.snapshot import Snapshot
from netagent.plan.render import networks_here
from netagent.services.context import Knowledge
from netagent.services.stores import Stores
from netagent.store.journal import Journal

log = logging.getLogger("netagent.naming")

PATIENCE_S = 0.5
"""How long an attach waits for its names to be answered; a slow DNS process must not hold it up."""
GRACE_S = 60.0
"""How long the names of a host outlive its lease."""
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0


def render_networks(snapshot: Snapshot) -> tuple[NetworkRecord, ...]:
    """Return the networks that are in this host's kernel."""
    return tuple(
        NetworkRecord(
            id=network.id,
            name=network.name,
            prefixes=tuple(str(subnet.prefix) for subnet in network.subnets),
            gateways=tuple(str(subnet.gateway) for subnet in network.subnets),
            internal=network.internal,
        )
        for network in networks_here(snapshot)
    )


def render_name(endpoint: Endpoint, network: Network, *, here: bool) -> NameRecord:
    """Return an endpoint as the DNS process knows it; in the default network nothing has a name, as in Docker."""
    names: tuple[str, ...] = ()
    if not (network.is_predefined and network.name == DEFAULT_NETWORK):
        own = (endpoint.container_name, *endpoint.aliases, short(endpoint.container_id), endpoint.hostname)
        names = tuple(dict.fromkeys(name for name in own if name))
    return NameRecord(
        id=endpoint.id,
        network=endpoint.network_id,
        container=endpoint.container_id,
        names=names,
        addresses=tuple(str(given.address) for given in endpoint.addresses),
        ports=tuple(dict.fromkeys((port, m.protocol) for m in endpoint.ports for port in m.container_ports)),
        here=here,
    )


class NamingService:
    """One per agent."""

    def __init__(self, knowledge: Knowledge, stores: Stores, journal: Journal, server: NameServer) -> None:
        self._knowledge = knowledge
        self._stores = stores
        self._journal = journal
        self._server = server
        self._wake = asyncio.Event()
        self._told: asyncio.Future[None] | None = None
        self._remote: dict[EndpointId, NameRecord] | None = None
        self._own: dict[EndpointId, tuple[Endpoint, NameRecord]] = {}
        self._last_live_s: dict[HostId, float] = {}

    def request(self, *, remote: bool = False) -> None:
        """Ask for the DNS process to be told what has changed; ``remote`` if that may be in the store."""
        if remote:
            self._remote = None
        self._wake.set()

    async def published(self) -> None:
        """Wait until what is known now is answered, at most ``PATIENCE_S``."""
        if self._told is None or self._told.done():
            self._told = asyncio.get_running_loop().create_future()
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.shield(self._told)

    async def run(self) -> None:
        """Tell the DNS process whenever something changed or it was replaced, until cancelled."""
        retry_s: float | None = None
        try:
            while True:
                await self._until_due(retry_s)
                self._wake.clear()
                told, self._told = self._told, None
                snapshot = self._knowledge.snapshot()
                try:
                    await self._server.tell(
                        render_networks(snapshot), dict(self._names(snapshot)), complete=snapshot.complete
                    )
                except NetagentError as error:
                    if retry_s is None:
                        log.warning("names are not up to date: %s", error)
                    retry_s = min(2 * retry_s if retry_s else FIRST_RETRY_S, LAST_RETRY_S)
                else:
                    retry_s = None
                if told is not None and not told.done():
                    told.set_result(None)
        finally:
            self._server.close()

    async def _until_due(self, retry_s: float | None) -> None:
        """Wait for a request, the loss of the process, the end of somebody's grace, or the time to try again."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(self._wake.wait())]
        if retry_s is None:
            waits.append(asyncio.create_task(self._server.lost()))
        try:
            await asyncio.wait(waits, timeout=retry_s or self._grace_left(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _grace_left(self) -> float | None:
        """Return the seconds until the first host's names are to go, None if all are live."""
        live, now = self._knowledge.snapshot().live, time.monotonic()
        ends = [seen + GRACE_S - now for host, seen in self._last_live_s.items() if host not in live]
        pending = [left for left in ends if left > 0]
        if len(pending) < len(ends):
            self._remote = None
        return min(pending, default=None)

    def _names(self, snapshot: Snapshot) -> Iterator[tuple[str, NameRecord]]:
        if self._remote is None:
            self._remote = self._render_remote(snapshot)
        yield from self._remote.items()
        own: dict[EndpointId, tuple[Endpoint, NameRecord]] = {}
        for endpoint in self._journal.endpoints.values():
            network = snapshot.networks.get(endpoint.network_id)
            if not endpoint.in_kernel or network is None:
                continue
            known = self._own.get(endpoint.id)
            if known is None or known[0] is not endpoint:
                known = (endpoint, render_name(endpoint, network, here=True))
            own[endpoint.id] = known
            yield endpoint.id, known[1]
        self._own = own

    def _render_remote(self, snapshot: Snapshot) -> dict[EndpointId, NameRecord]:
        """Return the names of the other hosts' endpoints in the networks that this host has."""
        now = time.monotonic()
        here: dict[NetworkId, Network] = {network.id: network for network in networks_here(snapshot)}
        found: dict[EndpointId, NameRecord] = {}
        seen: dict[HostId, float] = {}
        for access in self._stores.all:
            for host, endpoints in access.view.remote_endpoints.items():
                seen[host] = now if host in snapshot.live else self._last_live_s.get(host, now)
                if now - seen[host] < GRACE_S:
                    for endpoint in endpoints:
                        if endpoint.network_id in here:
                            found[endpoint.id] = render_name(endpoint, here[endpoint.network_id], here=False)
        self._last_live_s = seen
        return found
