"""The journal's part about Docker: the networks and address pools that this host's dockerd believes to have.

dockerd keeps them over its own restart and ours and does not ask again, so they are on disk before it is answered.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from netagent.model.docker import DockerNetwork, DockerPool
from netagent.store.record_format import keeping_unknown
from netagent.store.tables import present_record

SCHEMA = """
CREATE TABLE IF NOT EXISTS docker_networks (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS docker_pools (id TEXT PRIMARY KEY, record BLOB NOT NULL) STRICT;
"""


class DockerBook:
    """Two tables of one database. Reads come from memory; every write is one of the journal's transactions."""

    def __init__(
        self, database: sqlite3.Connection, transaction: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self._database = database
        self._transaction = transaction
        self.networks: dict[str, DockerNetwork] = {}
        self.pools: dict[str, DockerPool] = {}

    def load(self) -> None:
        """Read the tables."""
        for identity, record in self._database.execute("SELECT id, record FROM docker_networks"):
            self.networks[identity] = msgspec.json.decode(record, type=DockerNetwork)
        for identity, record in self._database.execute("SELECT id, record FROM docker_pools"):
            self.pools[identity] = msgspec.json.decode(record, type=DockerPool)

    def _record(self, select: str, item: DockerNetwork | DockerPool) -> bytes:
        return keeping_unknown(present_record(self._database, select, item.id), msgspec.to_builtins(item))

    def put_network(self, network: DockerNetwork) -> None:
        """Write one network."""
        with self._transaction("put_docker_network"):
            record = self._record("SELECT record FROM docker_networks WHERE id = ?", network)
            self._database.execute("INSERT OR REPLACE INTO docker_networks VALUES (?, ?)", (network.id, record))
        self.networks[network.id] = network

    def remove_network(self, identity: str) -> None:
        """Forget one network; an absent one is no error."""
        with self._transaction("remove_docker_network"):
            self._database.execute("DELETE FROM docker_networks WHERE id = ?", (identity,))
        self.networks.pop(identity, None)

    def put_pool(self, pool: DockerPool) -> None:
        """Write one pool."""
        with self._transaction("put_docker_pool"):
            record = self._record("SELECT record FROM docker_pools WHERE id = ?", pool)
            self._database.execute("INSERT OR REPLACE INTO docker_pools VALUES (?, ?)", (pool.id, record))
        self.pools[pool.id] = pool

    def remove_pool(self, identity: str) -> None:
        """Forget one pool; an absent one is no error."""
        with self._transaction("remove_docker_pool"):
            self._database.execute("DELETE FROM docker_pools WHERE id = ?", (identity,))
        self.pools.pop(identity, None)
