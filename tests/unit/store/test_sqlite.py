import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from netagent.errors import EnvironmentProblem, Unavailable
from netagent.reconcile.ports import Absent, Put
from netagent.store.sqlite import LAYOUT, SqliteStore

A = "/netagent/v1/a"


async def test_content_and_revision_survive_reopening(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    revision = await store.transact([], [Put(key=A, value=b"1")])
    cluster_id = store.cluster_id
    await store.close()
    store = SqliteStore(tmp_path / "store.db")
    assert (await store.list("/")).revision == revision
    assert store.cluster_id == cluster_id
    await store.close()


async def test_leased_keys_are_gone_after_reopening(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    revision = await store.transact([], [Put(key=A, value=b"1", leased=True), Put(key="/b", value=b"2")])
    assert revision is not None
    await store.close()
    store = SqliteStore(tmp_path / "store.db")
    listing = await store.list("/")
    assert [entry.key for entry in listing.entries] == ["/b"]
    assert listing.revision > revision
    await store.close()


async def test_key_put_again_without_lease_stays(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.transact([], [Put(key=A, value=b"1", leased=True)])
    await store.transact([], [Put(key=A, value=b"2")])
    await store.close()
    store = SqliteStore(tmp_path / "store.db")
    assert await store.get(A) is not None
    await store.close()


async def test_second_process_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    program = f"""
from pathlib import Path
from netagent.store.sqlite import SqliteStore
SqliteStore(Path({str(tmp_path / "store.db")!r}))
"""
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "EnvironmentProblem" in other.stderr
    assert "no other agent uses it" in other.stderr
    await store.close()


async def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database, " * 1000)
    with pytest.raises(EnvironmentProblem, match=r"store\.db"):
        SqliteStore(path)


async def test_a_later_layout_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.transact([], [Put(key=A, value=b"1", leased=True)])
    await store.close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(EnvironmentProblem, match=f"has layout {LAYOUT + 1}, this agent knows {LAYOUT}") as caught:
        SqliteStore(path)
    assert caught.value.hint == "use the netagent version that wrote it"
    assert path.read_bytes() == before


async def test_commit_survives_sigkill(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from netagent.reconcile.ports import Put
from netagent.store.sqlite import SqliteStore
store = SqliteStore(Path({str(tmp_path / "store.db")!r}))
asyncio.run(store.transact([], [Put(key={A!r}, value=b"1")]))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    store = SqliteStore(tmp_path / "store.db")
    assert await store.get(A) is not None
    await store.close()


async def test_failed_commit_changes_nothing_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "store.db")
    store._database.execute("PRAGMA max_page_count=10")
    with pytest.raises(Unavailable, match=r"store\.db.*full") as caught:
        await store.transact([Absent(key=A)], [Put(key=A, value=bytes(1_000_000))])
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert await store.get(A) is None
    assert await store.transact([Absent(key=A)], [Put(key=A, value=b"small")]) is not None
    await store.close()


def test_writes_are_synced_to_the_disk(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._database.execute("PRAGMA synchronous").fetchone() == (2,), "2 is FULL"
    store._database.close()
