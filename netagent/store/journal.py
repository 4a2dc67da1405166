"""The journal: what this host has promised, on disk before it is done.

SQLite in WAL mode with synchronous=FULL: a commit is on the disk when it returns, 0.2 ms here. An endpoint is written
as ``attaching`` before the first effect and as ``attached`` after the last; ``detaching`` before anything is taken
down, and its row goes last. What announces effects on the kernel alone is only handed to the operating system
(``lasting=False``): it outlives this process, and what ends the machine takes the kernel's state with it. The commit
that completes it brings both to the disk, as they are in one file (decision 19). With a network's first endpoint its
records are kept here too (``adopted``): if the store forgets them, this host does not; what else it has lost of that
network follows then (``services/keeping.py``). What a crash leaves in between
is decided at the next start (``recover`` in ``services/``).

One process opens it: the lock file beside it is held for as long as the journal is open.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from netagent import failpoint
from netagent.errors import EnvironmentProblem, NetagentError
from netagent.model.address import Address, parse_address
from netagent.model.container import Container, ContainerState
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import ContainerId, EndpointId, NetworkId
from netagent.store.docker import SCHEMA as DOCKER_SCHEMA
from netagent.store.docker import DockerBook
from netagent.store.endpoint_records import decode_endpoint, encode_endpoint
from netagent.store.record_format import keeping_unknown
from netagent.store.released import SCHEMA as RELEASED_SCHEMA
from netagent.store.released import ReleasedAddresses, Rest
from netagent.store.reserve import Reserve
from netagent.store.tables import layout_of, present_record, unknown_layout

SCHEMA_VERSION = 1

_LEAVING = (EndpointState.DETACHING, EndpointState.DORMANT)
_ENDED = (ContainerState.EXITED, ContainerState.REMOVING)
_UNWRITABLE = "the journal cannot be written: {}"
_FREE_SPACE = "free space in the state directory"

_SCHEMA = f"""
CREATE TABLE endpoints (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, record BLOB NOT NULL) STRICT;
CREATE TABLE adopted (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE cursors (network TEXT NOT NULL, version INTEGER NOT NULL, last TEXT NOT NULL,
                      PRIMARY KEY (network, version)) STRICT;
PRAGMA user_version = {SCHEMA_VERSION};
"""


class Journal:
    """This host's endpoints and containers. All reads come from memory; every write is one durable transaction.

    ``rest`` says how long an address rests that an endpoint gave back.
    """

    def __init__(self, directory: Path, *, rest: Rest | None = None) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(directory / "journal.lock")
        try:
            self._database = _open(directory / "journal.db")
        except BaseException:
            os.close(self._lock)
            raise
        self._is_lasting = True
        self._reserve = Reserve(directory / "journal.reserve")
        self.endpoints = Endpoints()
        """As they are now: the same object until the next change."""
        self.containers: dict[ContainerId, Container] = {}
        self.adopted: dict[str, bytes] = {}
        self._cursors: dict[tuple[NetworkId, int], Address] = {}
        self._released = ReleasedAddresses(self._database, rest or Rest())
        self.docker = DockerBook(self._database, self._transaction)
        try:
            self._load()
        except (sqlite3.DatabaseError, msgspec.MsgspecError, NetagentError) as error:
            self.close()
            raise EnvironmentProblem(
                f"the journal {directory / 'journal.db'} cannot be read: {error}", hint="restore it, or move it away"
            ) from error

    def _load(self) -> None:
        records = self._database.execute("SELECT record FROM endpoints ORDER BY rowid")
        self.endpoints = Endpoints.of(decode_endpoint(bytes(record), limit=None) for (record,) in records)
        for identity, record in self._database.execute("SELECT id, record FROM containers ORDER BY rowid"):
            self.containers[ContainerId(identity)] = msgspec.json.decode(record, type=Container)
        for network, version, last in self._database.execute("SELECT network, version, last FROM cursors"):
            self._cursors[NetworkId(network), version] = parse_address(last)
        self._released.load()
        self.docker.load()
        self.adopted.update(self._database.execute("SELECT key, value FROM adopted"))

    def endpoints_of(self, container_id: ContainerId) -> tuple[Endpoint, ...]:
        """Return a container's endpoints, in whatever state."""
        return self.endpoints.of_container(container_id)

    def last_address(self, network_id: NetworkId, version: int) -> Address | None:
        """Return the dynamic address of IP ``version`` given last in a network, or None."""
        return self._cursors.get((network_id, version))

    def resting(self, network_id: NetworkId) -> Mapping[Address, float]:
        """Return the addresses of a network that were given back too short a time ago, and when (Unix time)."""
        return self._released.resting(network_id)

    def put_endpoints(
        self,
        endpoints: Iterable[Endpoint],
        *,
        container: Container | None = None,
        adopt: Mapping[str, bytes] | None = None,
        lasting: bool = True,
    ) -> None:
        """Write endpoints and the dynamic addresses given, in one transaction.

        With them go, if given, their ``container`` and the records of the store to ``adopt``. What is not ``lasting``
        may be lost if the machine goes down before the next transaction that is.
        """
        rows = tuple(endpoints)
        gives_back = container is None and not adopt and all(endpoint.state in _LEAVING for endpoint in rows)
        with self._transaction("put_endpoints", lasting=lasting, gives_back=gives_back):
            if container is not None:
                self._put_container(container)
            for endpoint in rows:
                self._put_endpoint(endpoint)
                self._put_cursors(endpoint)
            self._released.note((self.endpoints.get(endpoint.id) for endpoint in rows), rows)
            self._database.executemany("INSERT OR REPLACE INTO adopted VALUES (?, ?)", (adopt or {}).items())
        self.adopted.update(adopt or {})
        for endpoint in rows:
            self.endpoints = self.endpoints.put(endpoint)
        if container is not None:
            self.containers[container.id] = container

    def adopt(self, records: Mapping[str, bytes]) -> None:
        """Keep ``records`` of the store."""
        self.put_endpoints((), adopt=records)

    def _put_endpoint(self, endpoint: Endpoint) -> None:
        old = present_record(self._database, "SELECT record FROM endpoints WHERE id = ?", endpoint.id)
        self._database.execute(
            "INSERT INTO endpoints VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            (endpoint.id, encode_endpoint(endpoint, old)),
        )

    def _put_cursors(self, endpoint: Endpoint) -> None:
        for given in endpoint.addresses:
            key = (endpoint.network_id, given.address.version)
            if not given.fixed and endpoint.id not in self.endpoints:
                self._database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (*key, str(given.address)))
                self._cursors[key] = given.address

    def remove_endpoints(self, endpoint_ids: Iterable[EndpointId], *, changed: Iterable[Endpoint] = ()) -> None:
        """Remove endpoints, and write others that are ``changed`` by it; absent ones are no error."""
        identities, rows = tuple(endpoint_ids), tuple(changed)
        with self._transaction("remove_endpoints", gives_back=True):
            self._database.executemany("DELETE FROM endpoints WHERE id = ?", [(i,) for i in identities])
            self._released.note(self.endpoints.get(i) for i in identities)
            for endpoint in rows:
                self._put_endpoint(endpoint)
        for identity in identities:
            self.endpoints = self.endpoints.without(identity)
        for endpoint in rows:
            self.endpoints = self.endpoints.put(endpoint)

    def put_container(self, container: Container) -> None:
        """Write one container."""
        with self._transaction("put_container", gives_back=container.state in _ENDED):
            self._put_container(container)
        self.containers[container.id] = container

    def _put_container(self, container: Container) -> None:
        old = present_record(self._database, "SELECT record FROM containers WHERE id = ?", container.id)
        self._database.execute(
            "INSERT INTO containers VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name,"
            " record = excluded.record",
            (container.id, container.name, keeping_unknown(old, msgspec.to_builtins(container))),
        )

    def remove_container(self, container_id: ContainerId) -> None:
        """Remove a container and whatever endpoints it still has; an absent one is no error."""
        orphans = [endpoint.id for endpoint in self.endpoints_of(container_id)]
        with self._transaction("remove_container", gives_back=True):
            self._database.executemany("DELETE FROM endpoints WHERE id = ?", [(i,) for i in orphans])
            self._database.execute("DELETE FROM containers WHERE id = ?", (container_id,))
            self._released.note(self.endpoints.get(i) for i in orphans)
        self.containers.pop(container_id, None)
        for identity in orphans:
            self.endpoints = self.endpoints.without(identity)

    def forget_network(self, network_id: NetworkId) -> None:
        """Forget where address hand-out stood in a network that is gone."""
        with self._transaction("forget_network", gives_back=True):
            self._database.execute("DELETE FROM cursors WHERE network = ?", (network_id,))
            self._released.forget_network(network_id)
        self._cursors = {key: last for key, last in self._cursors.items() if key[0] != network_id}

    def disown(self, keys: Iterable[str]) -> None:
        """Forget adopted records that nothing here needs any more."""
        surplus = tuple(keys)
        with self._transaction("disown", gives_back=True):
            self._database.executemany("DELETE FROM adopted WHERE key = ?", [(key,) for key in surplus])
        for key in surplus:
            self.adopted.pop(key, None)

    @contextmanager
    def _transaction(self, name: str, *, lasting: bool = True, gives_back: bool = False) -> Iterator[None]:
        """Write what is inside as a whole. What ``gives_back`` may take the disk's reserve."""
        failpoint.reach(f"journal.{name}.before")
        if gives_back:
            self._reserve.give_way()
        elif not self._reserve.restore():
            raise EnvironmentProblem(_UNWRITABLE.format("the disk is full"), hint=_FREE_SPACE)
        try:
            if lasting != self._is_lasting:
                self._database.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
                self._is_lasting = lasting
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.OperationalError as error:
            raise EnvironmentProblem(_UNWRITABLE.format(error), hint=_FREE_SPACE) from error
        failpoint.reach(f"journal.{name}.after")

    def close(self) -> None:
        """Close the files and let the next agent in."""
        self._database.close()
        os.close(self._lock)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise EnvironmentProblem(
            f"another agent is running with the state directory {path.parent}", hint="stop it, or use --state-dir"
        ) from None
    return descriptor


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    path.chmod(0o600)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        version = layout_of(database)
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        elif version != SCHEMA_VERSION:
            raise unknown_layout(f"the journal {path}", version, SCHEMA_VERSION)
        # Later than the layout: an agent without it neither needs nor touches it.
        database.executescript(RELEASED_SCHEMA + DOCKER_SCHEMA)
    except sqlite3.DatabaseError as error:
        database.close()
        raise EnvironmentProblem(
            f"the journal {path} cannot be read: {error}", hint="restore it, or move it away"
        ) from error
    except BaseException:
        database.close()
        raise
    return database
