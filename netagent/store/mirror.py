"""A copy in memory of everything the store holds below a prefix, kept current by a watch.

Readers use ``entries`` directly: nothing here waits for the store. The last complete state is saved to a file and
read back at the next start, so that an agent knows networks and peers before, and without, a store that answers.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, assert_never

from netagent.reconcile.ports import Change, Changes, Doubt, Listing, Relisted, Store, StoreEntry, WatchEvent
from netagent.store.mirror_file import MirrorState, read_mirror_file, write_mirror_file

_log = logging.getLogger(__name__)

SAVE_DELAY_S = 1.0
READ_YOUR_WRITES_S = 2.0

Subscriber = Callable[[frozenset[str]], None]


class IdentifiedStore(Store, Protocol):
    """A Store that can tell which one it is."""

    @property
    def cluster_id(self) -> str:
        """What distinguishes this store from every other; empty while it was never reached."""


class Mirror:
    """What ``store`` holds below ``prefix``. ``run`` keeps it current; without it only the saved state is there.

    ``is_loaded``: a saved state was read. ``is_synced``: the store itself was heard in this life. Either makes the
    mirror complete, which is the condition for pruning anything by it.
    """

    def __init__(self, store: IdentifiedStore, prefix: str, *, snapshot_path: Path | None = None) -> None:
        self._store = store
        self._prefix = prefix
        self._path = snapshot_path
        self._entries: dict[str, StoreEntry] = {}
        self._subscribers: list[Subscriber] = []
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        self._unsaved = asyncio.Event()
        self._writing = threading.Lock()
        self.entries: Mapping[str, StoreEntry] = MappingProxyType(self._entries)
        self.revision = 0
        self.listings: Counter[Doubt] = Counter()
        """How often all was listed, and why: once at the start, then after each doubt."""
        self.missed = 0
        """Changes of which no event came, as a listing showed. 0 unless the store has lied."""
        self.cluster_id = ""
        self.is_loaded = False
        self.is_synced = False
        self._load()

    @property
    def is_complete(self) -> bool:
        """Whether ``entries`` were the whole truth at some time."""
        return self.is_loaded or self.is_synced

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call ``callback`` with the changed keys after every batch, and once when first synced; return the way out.

        It runs in the event loop between two batches and must not raise.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def wait_until(self, predicate: Callable[[], bool], *, within: float) -> bool:
        """Wait until ``predicate`` holds after some batch, at most ``within`` seconds; tell whether it does."""
        if predicate():
            return True
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = predicate
        try:
            await asyncio.wait({future}, timeout=within)
            return future.done()
        finally:
            del self._waiting[future]

    async def wait_for(self, revision: int, *, within: float = READ_YOUR_WRITES_S) -> bool:
        """Wait until the mirror has what ``transact`` returned ``revision`` for; tell whether it came in time.

        It never comes for a transaction that changed nothing below the prefix, such as deletes of absent keys.
        """
        return await self.wait_until(lambda: self.revision >= revision, within=within)

    def shows(self, prefix: str, listing: Listing) -> bool:
        """Tell whether the mirror has heard of all that ``listing`` read below ``prefix``, or of what came after it."""
        if self.revision >= listing.revision:
            return True
        there = {entry.key: entry.revision for entry in listing.entries}
        here = {key: entry.revision for key, entry in self.entries.items() if key.startswith(prefix)}
        # Nothing here is newer than the reading.
        return here == there

    async def run(self) -> None:
        """Follow the store for ever; save the state when cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name=f"mirror {self._prefix}: follow")
                group.create_task(self._save_changes(), name=f"mirror {self._prefix}: save")
        finally:
            if self._unsaved.is_set() and self._path is not None:
                self._write(self._path, *self._content())

    def _load(self) -> None:
        state = read_mirror_file(self._path, prefix=self._prefix) if self._path is not None else None
        if state is None:
            return
        self._entries.update((entry.key, entry) for entry in state.store_entries())
        self.revision = state.revision
        self.cluster_id = state.cluster_id
        self.is_loaded = True

    async def _follow(self) -> None:
        async for event in self._store.watch(self._prefix):
            self._take(event)

    def _take(self, event: WatchEvent) -> None:
        was_synced = self.is_synced
        match event:
            case Relisted(listing=listing, why=why):
                self._note_cluster()
                if was_synced and why is not Doubt.ANOTHER_STORE:
                    self._count_missed(listing)
                changed = self._replace(listing.entries)
                self.revision = listing.revision
                self.is_synced = True
                self.listings[why] += 1
            case Changes(changes=changes, revision=revision):
                changed = frozenset(change.key for change in changes)
                for change in changes:
                    self._change(change)
                self.revision = revision
            case _:
                assert_never(event)
        self._unsaved.set()
        if changed or not was_synced:
            for callback in tuple(self._subscribers):
                callback(changed)
        for future, predicate in self._waiting.items():
            if not future.done() and predicate():
                future.set_result(None)

    def _note_cluster(self) -> None:
        if self.cluster_id and self.cluster_id != self._store.cluster_id:
            _log.warning("store %s has taken the place of %s", self._store.cluster_id, self.cluster_id)
        self.cluster_id = self._store.cluster_id

    def _count_missed(self, listing: Listing) -> None:
        """Count what is as old as what was heard, and was not heard. When a key was deleted cannot be seen."""
        missed = [
            entry.key
            for entry in listing.entries
            if entry.revision <= self.revision and self._entries.get(entry.key) != entry
        ]
        self.missed += len(missed)
        if missed:
            _log.warning("the store did not tell of %d changes, as of %s", len(missed), missed[0])

    def _replace(self, entries: Iterable[StoreEntry]) -> frozenset[str]:
        fresh = {entry.key: entry for entry in entries}
        changed = frozenset(
            key for key in fresh.keys() | self._entries.keys() if fresh.get(key) != self._entries.get(key)
        )
        self._entries.clear()
        self._entries.update(fresh)
        return changed

    def _change(self, change: Change) -> None:
        if change.value is None:
            self._entries.pop(change.key, None)
        else:
            self._entries[change.key] = StoreEntry(key=change.key, value=change.value, revision=change.revision)

    def _content(self) -> tuple[list[StoreEntry], int, str]:
        """Return all that is to be saved, as it is now."""
        return list(self._entries.values()), self.revision, self.cluster_id

    async def _save_changes(self) -> None:
        while self._path is not None:
            await self._unsaved.wait()
            await asyncio.sleep(SAVE_DELAY_S)
            self._unsaved.clear()
            await asyncio.to_thread(self._write, self._path, *self._content())

    def _write(self, path: Path, entries: list[StoreEntry], revision: int, cluster_id: str) -> None:
        state = MirrorState.of(entries, cluster_id=cluster_id, prefix=self._prefix, revision=revision)
        # In a thread while running and from the loop at the end: the lock keeps them out of each other's file.
        with self._writing:
            try:
                write_mirror_file(path, state)
            except OSError as error:
                _log.warning("cannot save the store's state to %s: %s", path, error)
