"""A store as the services use it: its mirror for reading, its transactions for claims, read-your-writes between them.

There are two: the host's own, for networks that live on one host, and the cluster's, for everything that is shared.
Without a cluster both are the same embedded store, and nothing else in the code knows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from netagent.errors import Unavailable
from netagent.model.network import Network, Scope
from netagent.reconcile.ports import AbsentBelow, Doubt, Guard, Store, StoreEntry, Unchanged, Write
from netagent.store import keys
from netagent.store.mirror import READ_YOUR_WRITES_S, Mirror
from netagent.store.transaction import all_hold
from netagent.store.view import ClusterView

LISTING_S = 10.0
AT_ONCE_S = 0.2
"""For how long the mirror is waited for to be as far as the store: other programs' changes count there as well, and are
not told here."""


class StoreAccess:
    """One store with its mirror and its decoded view. ``on_change`` is called after each change that was heard."""

    def __init__(self, store: Store, mirror: Mirror, view: ClusterView) -> None:
        self.store = store
        self.mirror = mirror
        self.view = view
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        view.update(mirror.entries, mirror.entries)
        mirror.subscribe(self._take)

    def subscribe(self, on_change: Callable[[frozenset[str]], None]) -> None:
        """Call ``on_change`` with the changed keys, the view being current by then."""
        self._listeners.append(on_change)

    def _take(self, changed: frozenset[str]) -> None:
        self.view.update(changed, self.mirror.entries)
        for listener in tuple(self._listeners):
            listener(changed)

    def entry(self, key: str) -> StoreEntry | None:
        """Return an entry as the mirror has it."""
        return self.mirror.entries.get(key)

    def unchanged(self, key: str) -> Guard:
        """Return the guard that a key is still as the mirror has it."""
        entry = self.mirror.entries.get(key)
        if entry is None:
            raise Unavailable(f"the store's record {key} is not known here yet", hint="try again in a moment")
        return Unchanged(key=key, revision=entry.revision)

    async def commit(self, guards: Sequence[Guard], writes: Sequence[Write]) -> bool:
        """Carry out a transaction and wait until the mirror shows it; False if a guard did not hold.

        After False the mirror has been brought up to date, so that the caller decides anew on the truth.
        """
        known = self.mirror.revision
        revision = await self.store.transact(guards, writes)
        if revision is None:
            await self._catch_up(*(guard.prefix if isinstance(guard, AbsentBelow) else guard.key for guard in guards))
            if all_hold(guards, self.mirror.entries):
                # A change was not told (etcd #18089), or somebody has undone it already.
                await self._list_anew(Doubt.UNTOLD, "it refused what should have passed by all that is known of it")
            return False
        await self._show(revision, known)
        return True

    async def catch_up(self) -> None:
        """Wait until the mirror shows what the store holds now."""
        await self._catch_up(keys.GENERATION)

    async def _catch_up(self, *prefixes: str) -> None:
        """Wait until the mirror is as far as the store, or at least shows what the store holds below ``prefixes``."""
        known = self.mirror.revision
        revision = (await self.store.list(keys.GENERATION)).revision
        await self._notice_history(revision, known)
        if await self.mirror.wait_for(revision, within=AT_ONCE_S):
            return
        listings = {prefix: await self.store.list(prefix) for prefix in dict.fromkeys(prefixes)}
        await self._wait_until(lambda: all(self.mirror.shows(prefix, found) for prefix, found in listings.items()))

    async def hear_anew(self) -> None:
        """Have everything listed anew: it may have been lost, and what is heard of the store be old."""
        await self.catch_up()
        if not await self._list_anew(Doubt.ASKED, "it was asked for"):
            raise Unavailable("the store was not heard anew in time", hint="try again in a moment")

    async def _show(self, revision: int, known: int) -> None:
        """Wait until the mirror shows ``revision``; ``known`` is what it showed before the store was asked."""
        await self._notice_history(revision, known)
        await self._wait_until(lambda: self.mirror.revision >= revision)

    async def _notice_history(self, revision: int, known: int) -> None:
        """Have everything listed anew if the store is at a lower ``revision`` than the mirror knew.

        A store that was wiped or restored counts from lower on: the mirror then shows another history, in which the
        revision means nothing.
        """
        if revision < known:
            await self._list_anew(Doubt.ANOTHER_STORE, f"it is at revision {revision}, and was at {known}")

    async def _wait_until(self, is_shown: Callable[[], bool]) -> None:
        if not await self.mirror.wait_until(is_shown, within=READ_YOUR_WRITES_S) and self.store.doubt(
            Doubt.UNTOLD, "what it has done is not told"
        ):
            # The watch rests after an interruption, or the event was lost.
            await self.mirror.wait_until(is_shown, within=READ_YOUR_WRITES_S)

    async def _list_anew(self, why: Doubt, reason: str) -> bool:
        before = self.mirror.listings.total()
        if not self.store.doubt(why, reason):
            return True
        return await self.mirror.wait_until(lambda: self.mirror.listings.total() > before, within=LISTING_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The host's own store and the cluster's; the same object on a single host."""

    local: StoreAccess
    cluster: StoreAccess

    @property
    def all(self) -> tuple[StoreAccess, ...]:
        """Both, or the one."""
        return (self.local,) if self.local is self.cluster else (self.local, self.cluster)

    def of(self, network: Network) -> StoreAccess:
        """Return the store that a network lives in: the one that has it, whatever its scope says."""
        key = keys.network_key(network.name)
        return next((a for a in self.all if a.view.has_network(key, network.id)), self.for_scope(network.scope))

    def for_scope(self, scope: Scope) -> StoreAccess:
        """Return the store for networks of ``scope``."""
        return self.local if scope is Scope.LOCAL else self.cluster

    def adopt(self, records: Mapping[str, bytes]) -> None:
        """Let each store's view take over what the journal kept of its networks; see ``ClusterView.adopt``."""
        for scope in Scope:
            self.for_scope(scope).view.adopt(records, scope)
