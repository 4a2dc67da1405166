"""Every kind of store, empty and open."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from netagent.store.etcd.access import parse_access
from netagent.store.etcd.store import EtcdStore
from netagent.store.memory import MemoryStore
from netagent.store.mirror import IdentifiedStore
from netagent.store.sqlite import SqliteStore
from tests.support.etcd import EtcdServer, etcd_server


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", pytest.param("etcd", marks=pytest.mark.cluster)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[IdentifiedStore]:
    store: IdentifiedStore
    if request.param == "memory":
        store = MemoryStore()
    elif request.param == "sqlite":
        store = SqliteStore(tmp_path / "store.db")
    else:
        server: EtcdServer = request.getfixturevalue("etcd")
        server.ctl("del", "--prefix", "/")
        store = EtcdStore(parse_access(server.url))
    yield store
    await store.close()
