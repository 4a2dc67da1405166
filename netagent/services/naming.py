"""Keeps the DNS process told: which networks this host has, and the names of all endpoints in them.

Own endpoints come from the journal, the others' from the store. A host that is not live any more keeps its names for
a while, because its containers run on without an agent, and etcd may have lost its lease.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress

from netagent.dns.client import NameServer, Scope
from netagent.dns.control import NameRecord, NetworkRecord
from netagent.errors import NetagentError
from netagent.model.container import Container
from netagent.model.endpoint import Endpoint
from netagent.model.ids import EndpointId, HostId, short
from netagent.model.network import DEFAULT_NETWORK, Network
from netagent.model.snapshot import Snapshot
from netagent.plan.render import networks_here
from netagent.services.context import Knowledge
from netagent.services.stores import Stores
from netagent.store import keys
from netagent.store.journal import Journal

log = logging.getLogger("netagent.naming")

PATIENCE_S = 0.5
"""How long an attach waits for its names to be answered; a slow DNS process must not hold it up."""
GRACE_S = 4.0
"""How long the names of a host outlive its lease: an agent that restarts, or that etcd had lost, is back by then."""
FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0
_NAMELESS = (keys.BLOCKS, keys.ADDRESSES, keys.HOSTS)
"""Records that say nothing of names: other hosts' are many, and each change would have all names looked at."""


def render_scope(snapshot: Snapshot, own: tuple[str, ...]) -> Scope:
    """Return who may ask what: in the networks that are in this host's kernel, and the host itself at ``own``."""
    return Scope(
        networks=tuple(
            NetworkRecord(
                id=network.id,
                name=network.name,
                prefixes=tuple(str(subnet.prefix) for subnet in network.subnets),
                gateways=tuple(str(subnet.gateway) for subnet in network.subnets),
                internal=network.internal,
            )
            for network in networks_here(snapshot)
        ),
        private=tuple(str(subnet.prefix) for network in snapshot.networks.values() for subnet in network.subnets),
        own=own,
    )


def render_name(endpoint: Endpoint, network: Network, container: Container | None = None) -> NameRecord:
    """Return an endpoint as the DNS process knows it, with its ``container`` if that is on this host.

    In the default network nothing has a name, as in Docker; links work there too.
    """
    names: tuple[str, ...] = ()
    if not (network.is_predefined and network.name == DEFAULT_NETWORK):
        own = (endpoint.container_name, *endpoint.aliases, short(endpoint.container_id), endpoint.hostname)
        names = tuple(dict.fromkeys(name for name in own if name))
    return NameRecord(
        id=endpoint.id,
        network=endpoint.network_id,
        container=endpoint.container_id,
        title=endpoint.container_name,
        names=names,
        addresses=tuple(str(given.address) for given in endpoint.addresses),
        ports=tuple(dict.fromkeys((port, m.protocol) for m in endpoint.ports for port in m.container_ports)),
        links=tuple((link.alias, link.target) for link in container.links) if container else (),
        servers=container.resolver.nameservers or network.nameservers if container else (),
        here=container is not None,
    )


class NamingService:
    """One per agent. ``own_addresses`` are those at which the host itself asks; ``clock`` is in seconds."""

    def __init__(
        self,
        knowledge: Knowledge,
        stores: Stores,
        journal: Journal,
        server: NameServer,
        *,
        own_addresses: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._knowledge = knowledge
        self._stores = stores
        self._journal = journal
        self._server = server
        self._own_addresses = own_addresses
        self._clock = clock
        self._wake = asyncio.Event()
        self._told: asyncio.Future[None] | None = None
        self._names: dict[str, NameRecord] = {}
        self._scope = Scope()
        self._here: frozenset[str] = frozenset()
        self._population: Counter[str] = Counter()
        self._is_moved = False
        self._cut_off: frozenset[EndpointId] = frozenset()
        self._changed: dict[str, str] | None = None
        self._gone_since_s: dict[HostId, float] = {}
        self._forgotten: frozenset[HostId] = frozenset()

    def request(self, endpoints: Iterable[EndpointId] = ()) -> None:
        """Ask for the DNS process to be told soon of these endpoints of this host, as the journal then has them."""
        if self._changed is not None:
            self._changed.update(dict.fromkeys(endpoints, ""))
        self._wake.set()

    def request_stored(self, changed: frozenset[str]) -> None:
        """Ask for the DNS process to be told of what has changed in a store."""
        if self._changed is None or not all(key.startswith((*_NAMELESS, keys.ENDPOINTS)) for key in changed):
            self._changed = None
        else:
            self._changed.update((key.rpartition("/")[2], key) for key in changed if key.startswith(keys.ENDPOINTS))
            # A claim of this host may bring a network here, or take it away.
            self._is_moved |= any(key.startswith(_NAMELESS) for key in changed)
        self._wake.set()

    async def published(self, endpoints: Iterable[EndpointId] = ()) -> None:
        """Wait until what is known now of these endpoints is answered, at most ``PATIENCE_S``."""
        if self._told is None or self._told.done():
            self._told = asyncio.get_running_loop().create_future()
        self.request(endpoints)
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
                try:
                    await self._tell()
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
        if self._wake.is_set() and retry_s is None:
            return
        waits: list[asyncio.Task[object]] = [asyncio.create_task(self._wake.wait())]
        if retry_s is None:
            waits.append(asyncio.create_task(self._server.lost()))
        try:
            await asyncio.wait(waits, timeout=retry_s or self._grace_left(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _grace_left(self) -> float | None:
        """Return the seconds until the first host's names are to go, None if none are."""
        now = self._clock()
        ends = [since + GRACE_S - now for host, since in self._gone_since_s.items() if host not in self._forgotten]
        if any(left <= 0 for left in ends):
            self._changed = None
        return max(min(ends), 0.0) if ends else None

    async def _tell(self) -> None:
        changed, self._changed = self._changed, {}
        snapshot = self._knowledge.snapshot()
        try:
            if changed is not None:
                for identity, key in changed.items():
                    self._take(snapshot, EndpointId(identity), key)
                scope = render_scope(snapshot, self._own_addresses) if self._is_moved else self._scope
                if scope != self._scope or snapshot.cut_off != self._cut_off:
                    changed = None
            if changed is None:
                self._take_all(snapshot)
            await self._server.tell(self._scope, self._names, changed=changed, complete=snapshot.complete)
        except BaseException:
            self._changed = None
            raise

    def _take_all(self, snapshot: Snapshot) -> None:
        """Learn everything anew."""
        self._scope = render_scope(snapshot, self._own_addresses)
        self._here = frozenset(network.id for network in self._scope.networks)
        self._cut_off = snapshot.cut_off
        self._names.clear()
        self._population.clear()
        remote = {key: endpoint for access in self._stores.all for key, endpoint in access.view.endpoints.items()}
        self._note_live(snapshot, {keys.host_of_endpoint(key) for key in remote})
        for key, endpoint in remote.items():
            self._take(snapshot, endpoint.id, key)
        for identity in self._journal.endpoints:
            self._take(snapshot, identity)
        self._is_moved = False

    def _note_live(self, snapshot: Snapshot, hosts: Iterable[HostId]) -> None:
        now, gone = self._clock(), [host for host in hosts if host not in snapshot.live]
        self._gone_since_s = {host: self._gone_since_s.get(host, now) for host in gone}
        self._forgotten = frozenset(host for host, since in self._gone_since_s.items() if now - since >= GRACE_S)

    def _take(self, snapshot: Snapshot, identity: EndpointId, key: str = "") -> None:
        """Learn of one endpoint: of this host, or the one that another host has published under ``key``."""
        own = self._journal.endpoints.get(identity)
        if own is not None:
            network = snapshot.networks.get(own.network_id)
            container = self._journal.containers.get(own.container_id)
            is_served = own.in_kernel and not (snapshot.contested and own.id in snapshot.cut_off)
            record = render_name(own, network, container) if network is not None and is_served else None
        else:
            record = self._render_remote(snapshot, key) if key else None
        self._put(identity, record)

    def _render_remote(self, snapshot: Snapshot, key: str) -> NameRecord | None:
        """Return another host's endpoint if it is in a network that this host has, and its host not long gone."""
        endpoint = next((e for access in self._stores.all if (e := access.view.endpoints.get(key))), None)
        host, now = keys.host_of_endpoint(key), self._clock()
        if endpoint is None or endpoint.network_id not in self._here:
            return None
        since = now if host in snapshot.live else self._gone_since_s.setdefault(host, now)
        network = snapshot.networks.get(endpoint.network_id)
        return render_name(endpoint, network, None) if network is not None and now - since < GRACE_S else None

    def _put(self, identity: EndpointId, record: NameRecord | None) -> None:
        """Note a record; the first and the last of this host in a network may bring the network or take it away."""
        old = self._names.pop(identity, None)
        for each, step in ((old, -1), (record, 1)):
            if each is not None and each.here:
                self._population[each.network] += step
        if record is not None:
            self._names[identity] = record
        for each in (old, record):
            if each is not None and each.here and self._population[each.network] <= 1:
                self._is_moved = True
