"""A store in memory, for tests of what stands on a store: it can lose its connection, its history and its lease."""

from collections.abc import AsyncIterator, Callable, Sequence

from netagent.errors import Unavailable
from netagent.reconcile.ports import (
    Change,
    Doubt,
    Guard,
    Listing,
    Put,
    StoreEntry,
    StoreStatistics,
    WatchEvent,
    Write,
)
from netagent.store.subscriptions import Subscriptions
from netagent.store.transaction import all_hold, check_transaction


class MemoryStore:
    """A Store whose content ends with the process. Several agents of one test may share one."""

    def __init__(self) -> None:
        self._entries: dict[str, StoreEntry] = {}
        self._leased: set[str] = set()
        self._revision = 1
        self._subscriptions = Subscriptions()
        self._lease_callbacks: list[Callable[[], None]] = []
        self.cluster_id = "memory"
        self.is_connected = True
        self.lease_remaining_s: float | None = None
        self.statistics = StoreStatistics()

    async def get(self, key: str) -> StoreEntry | None:
        """Return one entry, or None."""
        self._require_connection()
        return self._entries.get(key)

    async def list(self, prefix: str) -> Listing:
        """Return all entries whose key begins with ``prefix``."""
        self._require_connection()
        return self._listing(prefix)

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int | None:
        """Carry out ``writes`` if all ``guards`` hold."""
        check_transaction(guards, writes)
        self._require_connection()
        if not all_hold(guards, self._entries):
            return None
        if writes:
            self._commit(writes)
        return self._revision

    def watch(self, prefix: str) -> AsyncIterator[WatchEvent]:
        """Yield a Relisted, then the changes below ``prefix``."""
        return self._subscriptions.watch(prefix, lambda: self._listing(prefix))

    async def close(self) -> None:
        """End the watches."""
        self.is_connected = False
        self._subscriptions.close()

    def doubt(self, why: Doubt, reason: str) -> bool:
        """False: nobody else writes here."""
        return False

    def on_lease_replaced(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every ``expire_lease``."""
        self._lease_callbacks.append(callback)

    async def disconnect(self) -> None:
        """From now on calls raise Unavailable and watches wait."""
        self.is_connected = False
        self._subscriptions.pause()

    async def reconnect(self) -> None:
        """End a ``disconnect``."""
        self.is_connected = True
        self._subscriptions.resume()

    def compact(self) -> None:
        """Forget the history: every watch goes on with a Relisted."""
        self._subscriptions.relist()

    def expire_lease(self) -> None:
        """Remove all leased keys, as etcd does when an agent is away for longer than its lease."""
        entries, self._leased = self._leased, set()
        self._revision += 1
        changes = [Change(key=key, value=None, revision=self._revision) for key in sorted(entries)]
        for change in changes:
            del self._entries[change.key]
        self._subscriptions.publish(changes, self._revision)
        for callback in self._lease_callbacks:
            callback()

    def _require_connection(self) -> None:
        if not self.is_connected:
            raise Unavailable("store is disconnected", hint="call reconnect()", maybe_applied=False)

    def _listing(self, prefix: str) -> Listing:
        entries = (self._entries[key] for key in sorted(self._entries) if key.startswith(prefix))
        return Listing(entries=tuple(entries), revision=self._revision)

    def _commit(self, writes: Sequence[Write]) -> None:
        self._revision += 1
        changes = []
        for write in writes:
            self._leased.discard(write.key)
            if isinstance(write, Put):
                self._entries[write.key] = StoreEntry(key=write.key, value=write.value, revision=self._revision)
                changes.append(Change(key=write.key, value=write.value, revision=self._revision))
                if write.leased:
                    self._leased.add(write.key)
            elif self._entries.pop(write.key, None) is not None:
                changes.append(Change(key=write.key, value=None, revision=self._revision))
        self._subscriptions.publish(changes, self._revision)
