"""Presence: one agent for each host UUID, one host for each underlay address.

An agent shows that it lives by ``live/<uuid>``, which it creates exclusively and which goes with its lease. Finding
another life's there, it asks whose: one of the same boot of the same machine at the same addresses is its own last
one and is taken over at once; any other is waited for as long as a lease lasts, for it may be the machine's life
before a reboot. What is still there then belongs to another machine, as after a disk was cloned, and the agent
that came later ends. So it does when a live host has its underlay address.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from netagent.errors import Conflict, NetagentError
from netagent.model.host import Host, Incarnation
from netagent.reconcile.ports import Absent, Delete, Guard, Put, StoreEntry, Unchanged, Write
from netagent.services.context import Knowledge
from netagent.services.events import EventBus
from netagent.services.stores import StoreAccess, Stores
from netagent.store import keys
from netagent.store.host_records import decode_live, decode_removed, encode_live
from netagent.store.records import encode_host

log = logging.getLogger("netagent.presence")

PATIENCE_S = 20.0
"""How long another life is waited for to end: its lease's 15 s, and what etcd needs to notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What tells the store of this host, and under which guards; ``news`` are things to be said once it is told."""

    guards: tuple[Guard, ...]
    writes: tuple[Write, ...]
    news: tuple[str, ...] = field(default=())


class Presence:
    """This agent's life as the cluster sees it. ``boot`` is the machine's, ``life`` this process's random id."""

    def __init__(
        self, knowledge: Knowledge, stores: Stores, events: EventBus, *, boot: str, life: str, state_dir: str = ""
    ) -> None:
        self._knowledge = knowledge
        self._access = stores.cluster
        # The embedded store is this host's alone: whatever it holds of earlier lives is over.
        self._is_shared = stores.cluster is not stores.local
        self._events = events
        self._boot = boot
        self._life = life
        self._state_dir = state_dir
        self._is_announced = False
        self.on_lease_replaced: Callable[[], None] = lambda: None
        stores.cluster.store.on_lease_replaced(self._announce_again)

    def _announce_again(self) -> None:
        self._is_announced = False
        self.on_lease_replaced()

    def doubt(self) -> None:
        """Have everything announced again: it is not known what became of the last announcement."""
        self._is_announced = False

    @property
    def incarnation(self) -> Incarnation:
        """This life."""
        return Incarnation(boot=self._boot, life=self._life, underlay=self._knowledge.host.underlay)

    async def establish(self) -> None:
        """Make this agent the one of its host, if the store answers; Conflict if another machine is it already."""
        if not self._access.mirror.is_synced:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        has_waited = False
        while True:
            try:
                if await self.announce():
                    return
            except Conflict as error:
                if loop.time() > deadline:
                    raise
                if not has_waited:
                    log.warning("%s; waiting %.0f s for it to end", error.message, PATIENCE_S)
                has_waited = True
                await self._access.mirror.wait_until(lambda: not self._is_disputed(), within=1.0)
            except NetagentError as error:
                log.warning("the store does not know yet that this host lives: %s", error)
                return

    async def run(self) -> None:
        """Watch over it until cancelled; Conflict once another machine is this host, or has its address."""
        while True:
            # Also after a silence: the lease of a life that was cut off ends without anything for us to hear.
            if await self._access.mirror.wait_until(self._is_disputed, within=3600.0):
                await self.establish()

    async def announce(self) -> bool:
        """Tell the store of this host whatever it does not know yet; False if it changed meanwhile.

        Raises Conflict, having written nothing, if another machine is this host or has its address.
        """
        announcement = self._announcement()
        if announcement is None:
            return True
        if not await self._access.commit(announcement.guards, announcement.writes):
            return False
        self._is_announced = True
        for line in announcement.news:
            log.warning("%s", line)
            self._events.publish("host", "return", self._knowledge.host.id, name=self._knowledge.host.name)
        self._refuse_twin()
        return True

    def _announcement(self) -> Announcement | None:
        host = self._knowledge.host
        self._refuse_stranger()
        self._refuse_twin()
        guards: list[Guard] = []
        writes: list[Write] = []
        news: list[str] = []
        key, live = keys.host_key(host.id), keys.live_key(host.id)
        entry = self._access.entry(key)
        record = encode_host(host, entry.value if entry else None)
        if entry is None or entry.value != record:
            guards.append(_as_it_is(self._access, key))
            writes.append(Put(key=key, value=record))
        value, found = encode_live(self.incarnation), self._access.entry(live)
        if found is None or found.value != value or not self._is_announced:
            guards.append(_as_it_is(self._access, live))
            writes.append(Put(key=live, value=value, leased=True))
        removed = self._access.entry(keys.removed_key(host.id))
        if removed is not None:
            guards.append(Unchanged(key=removed.key, revision=removed.revision))
            writes.append(Delete(key=removed.key))
            news.append(_returned(host, removed))
        if not writes:
            return None
        return Announcement(guards=tuple(guards), writes=tuple(writes), news=tuple(news))

    def _is_disputed(self) -> bool:
        try:
            self._refuse_stranger()
            self._refuse_twin()
        except Conflict:
            return True
        return False

    def _refuse_stranger(self) -> None:
        """Raise Conflict while another life, not known to be over, is this host."""
        host = self._knowledge.host
        entry = self._access.entry(keys.live_key(host.id))
        if entry is None or not self._is_shared:
            return
        try:
            found = decode_live(entry.value)
        except NetagentError:
            return
        is_own = found.life == self._life or (not self._is_announced and self.incarnation.succeeds(found))
        if found.life and not is_own:
            where = f" at {found.underlay[0]}" if found.underlay else ""
            raise Conflict(
                f"another machine{where} is host {host.id} already",
                hint=f"if this one was cloned from it, empty {self._state_dir or 'the state directory'} here",
            )

    def _refuse_twin(self) -> None:
        """Raise Conflict while another live host, which was there before, has this host's underlay address."""
        snapshot = self._knowledge.snapshot()
        own = self._access.entry(keys.live_key(snapshot.host.id))
        for shared, identity in ((end, other) for end in snapshot.host.underlay for other in snapshot.hosts.at(end)):
            if identity == snapshot.host.id or identity not in snapshot.live:
                continue
            other = snapshot.hosts[identity]
            theirs = self._access.entry(keys.live_key(identity))
            was_first = own is not None and theirs is not None and own.revision < theirs.revision
            if not was_first:
                raise Conflict(
                    f"host {other.name} ({other.id}) has this host's underlay address {shared}",
                    hint="give one of them another address, or choose it by --host-ip",
                )


def _as_it_is(access: StoreAccess, key: str) -> Guard:
    entry = access.entry(key)
    return Absent(key=key) if entry is None else Unchanged(key=key, revision=entry.revision)


def _returned(host: Host, entry: StoreEntry) -> str:
    when = "a time that cannot be read"
    try:
        when = decode_removed(entry.value).time or when
    except NetagentError as error:
        log.warning("record %s: %s", entry.key, error.message)
    return (
        f"host {host.name} was removed from the cluster at {when} and is back: it claims its blocks anew;"
        " containers whose addresses others have by now are cut off"
    )
