"""The store of a single host: one SQLite file, called straight from the event loop (a commit takes 0.2 ms).

It belongs to one process at a time: the file is locked exclusively, because a watch hears only of changes made
through this object.
"""

import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from netagent import failpoint
from netagent.errors import EnvironmentProblem, Unavailable
from netagent.reconcile.ports import (
    Absent,
    AbsentBelow,
    Change,
    Doubt,
    Guard,
    Listing,
    Put,
    StoreEntry,
    StoreStatistics,
    Unchanged,
    WatchEvent,
    Write,
)
from netagent.store.subscriptions import Subscriptions
from netagent.store.tables import layout_of, unknown_layout
from netagent.store.transaction import check_transaction

LAYOUT = 1
"""What ``PRAGMA user_version`` says of a file with these tables. It says 0 of a new one."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    revision INTEGER NOT NULL,
    leased INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS store (revision INTEGER NOT NULL, cluster_id TEXT NOT NULL);
"""


class SqliteStore:
    """A Store in the file ``path``. Leased keys last as long as the process that wrote them: opening removes them.

    Raises EnvironmentProblem if the file cannot be opened, is in use by another process, is not a database or has a
    later version's layout.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._subscriptions = Subscriptions()
        try:
            self._database = sqlite3.connect(path, isolation_level=None, timeout=1)
            self._prepare()
        except sqlite3.Error as error:
            raise EnvironmentProblem(
                f"cannot open store {path}: {error}",
                hint="see that no other agent uses it, that its folder is writable, and restore it if it is damaged",
                path=path,
            ) from error

    def _prepare(self) -> None:
        execute = self._database.execute
        execute("PRAGMA locking_mode=EXCLUSIVE")
        if (layout := layout_of(self._database)) > LAYOUT:
            self._database.close()
            raise unknown_layout(f"the store {self._path}", layout, LAYOUT)
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                execute(statement)
            execute(f"PRAGMA user_version = {LAYOUT}")
            if execute("SELECT count(*) FROM store").fetchone() == (0,):
                execute("INSERT INTO store VALUES (1, ?)", (uuid.uuid4().hex,))
            if execute("DELETE FROM entries WHERE leased").rowcount:
                execute("UPDATE store SET revision = revision + 1")
        (self.cluster_id,) = execute("SELECT cluster_id FROM store").fetchone()

    @property
    def is_connected(self) -> bool:
        """Always: the file is at hand as long as the process is."""
        return True

    @property
    def lease_remaining_s(self) -> float | None:
        """None: nothing expires."""
        return None

    @property
    def statistics(self) -> StoreStatistics:
        """Nothing: no call is lost."""
        return StoreStatistics()

    async def get(self, key: str) -> StoreEntry | None:
        """Return one entry, or None."""
        with self._explained():
            row = self._database.execute("SELECT value, revision FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else StoreEntry(key=key, value=row[0], revision=row[1])

    async def list(self, prefix: str) -> Listing:
        """Return all entries whose key begins with ``prefix``."""
        return self._listing(prefix)

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int | None:
        """Carry out ``writes`` if all ``guards`` hold; on the disk when this returns."""
        check_transaction(guards, writes)
        failpoint.reach("store.transact")
        with self._explained(), self._transaction():
            if not all(self._holds(guard) for guard in guards):
                return None
            revision = self._revision()
            if not writes:
                return revision
            revision += 1
            changes = [change for write in writes for change in self._carry_out(write, revision)]
            self._database.execute("UPDATE store SET revision = ?", (revision,))
        failpoint.reach("store.transact")
        self._subscriptions.publish(changes, revision)
        return revision

    def watch(self, prefix: str) -> AsyncIterator[WatchEvent]:
        """Yield a Relisted, then the changes below ``prefix``."""
        return self._subscriptions.watch(prefix, lambda: self._listing(prefix))

    def doubt(self, why: Doubt, reason: str) -> bool:
        """False: nobody else writes here."""
        return False

    def on_lease_replaced(self, callback: Callable[[], None]) -> None:
        """Never calls: leased keys here cannot be lost while the process lives."""

    async def close(self) -> None:
        """End the watches and close the file."""
        self._subscriptions.close()
        self._database.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise Unavailable(
                f"store {self._path} failed: {error}",
                hint="see whether its file system is full or read-only",
                path=self._path,
                maybe_applied=False,
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def _revision(self) -> int:
        (revision,) = self._database.execute("SELECT revision FROM store").fetchone()
        return int(revision)

    def _holds(self, guard: Guard) -> bool:
        match guard:
            case Absent(key=key):
                return self._revision_of(key) is None
            case Unchanged(key=key, revision=revision):
                return self._revision_of(key) == revision
            case AbsentBelow(prefix=prefix):
                return not self._rows_below(prefix)

    def _revision_of(self, key: str) -> int | None:
        row = self._database.execute("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def _carry_out(self, write: Write, revision: int) -> Iterator[Change]:
        if isinstance(write, Put):
            row = (write.key, write.value, revision, write.leased)
            self._database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", row)
            yield Change(key=write.key, value=write.value, revision=revision)
        elif self._database.execute("DELETE FROM entries WHERE key = ?", (write.key,)).rowcount:
            yield Change(key=write.key, value=None, revision=revision)

    def _listing(self, prefix: str) -> Listing:
        with self._explained():
            rows = self._rows_below(prefix)
            entries = (StoreEntry(key=key, value=value, revision=revision) for key, value, revision in rows)
            return Listing(entries=tuple(entries), revision=self._revision())

    def _rows_below(self, prefix: str) -> Sequence[tuple[str, bytes, int]]:
        # Not LIKE: it ignores case and has wildcards. The highest code point ends the range of the keys that begin so.
        query = "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key"
        return self._database.execute(query, (prefix, prefix + "\U0010ffff")).fetchall()
