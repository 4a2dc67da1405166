"""The journal: what it was told it still knows after any end, and what it cannot read it does not touch."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from netagent.errors import EnvironmentProblem
from netagent.model.address import parse_address
from netagent.model.container import Container, ContainerKind, ContainerState, NetworkMode
from netagent.model.docker import DockerNetwork, DockerPool
from netagent.model.endpoint import EndpointState
from netagent.model.ids import ContainerId
from netagent.store.journal import SCHEMA_VERSION, Journal
from tests.support.world import LOCALNET, STATICNET, an_endpoint

WEB = Container(
    id=ContainerId("c" * 64),
    name="web",
    kind=ContainerKind.RUN,
    mode=NetworkMode.CONTAINER,
    shares=ContainerId("d" * 64),
    sandbox="/run/netns/web",
    owns_sandbox=True,
    runtime_id="pod1",
    state=ContainerState.RUNNING,
    command=("sh", "-c", "echo 'ä'"),
    hostname="www",
    auto_remove=True,
    created="2026-07-01T12:00:00Z",
    exit_code=137,
    spec='{"id":"x"}',
)


def killed(journal: Journal, directory: Path, copy: Path) -> Journal:
    """Return the journal that the next agent finds if this one is killed now: files as they are, nothing closed."""
    shutil.copytree(directory, copy)
    return Journal(copy)


ONE, OTHER = an_endpoint("192.168.1.7"), an_endpoint("192.168.1.8", digit="f")

CHANGES: dict[str, list[Callable[[Journal], None]]] = {
    "endpoints": [
        lambda j: j.put_endpoints([an_endpoint("192.168.1.7", publish=("4000:80", "127.0.0.1:53:53/udp"), fixed=True)]),
        lambda j: j.put_endpoints([replace(OTHER, state=EndpointState.ATTACHING, aliases=("db",))]),
    ],
    "an intent alone": [lambda j: j.put_endpoints([ONE], container=WEB, lasting=False)],
    "an endpoint and its container": [lambda j: j.put_endpoints([ONE], container=WEB)],
    "an endpoint again": [
        lambda j: j.put_endpoints([ONE, OTHER]),
        lambda j: j.put_endpoints([replace(ONE, state=EndpointState.DORMANT, addresses=())]),
    ],
    "a container": [lambda j: j.put_container(WEB)],
    "a renamed container": [lambda j: j.put_container(WEB), lambda j: j.put_container(replace(WEB, name="api"))],
    "one endpoint less": [
        lambda j: j.put_endpoints([ONE, OTHER]),
        lambda j: j.remove_endpoints([ONE.id, an_endpoint(digit="9").id]),
    ],
    "one endpoint less and another one changed": [
        lambda j: j.put_endpoints([ONE, OTHER]),
        lambda j: j.remove_endpoints([ONE.id], changed=[replace(OTHER, ways_out=(6,))]),
    ],
    "no container": [
        lambda j: j.put_endpoints([ONE], container=WEB),
        lambda j: j.remove_container(WEB.id),
        lambda j: j.remove_container(WEB.id),
    ],
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_a_killed_agents_journal_says_what_it_was_told(
    tmp_path: Path, changes: list[Callable[[Journal], None]]
) -> None:
    journal = Journal(tmp_path / "a")
    for change in changes:
        change(journal)
    again = killed(journal, tmp_path / "a", tmp_path / "b")
    try:
        assert (again.endpoints, again.containers) == (journal.endpoints, journal.containers)
        assert list(again.endpoints) == list(journal.endpoints)
        assert again.last_address(STATICNET, 4) == journal.last_address(STATICNET, 4)
    finally:
        again.close()
        journal.close()


def test_only_an_intent_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    waits = []
    for lasting in (False, True, True, False):
        journal.put_endpoints([ONE], lasting=lasting)
        (level,) = journal._database.execute("PRAGMA synchronous").fetchone()
        waits.append(level)
    journal.remove_endpoints([ONE.id])
    assert (*waits, *journal._database.execute("PRAGMA synchronous").fetchone()) == (1, 2, 2, 1, 2), "2 is FULL"
    journal.close()


def test_a_container_takes_its_endpoints_along(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put_endpoints([an_endpoint("192.168.1.7")], container=WEB)
    journal.remove_container(WEB.id)
    assert (journal.endpoints, journal.containers) == ({}, {})
    journal.close()


def test_the_last_dynamic_address_is_kept_per_network_and_family(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.last_address(STATICNET, 4) is None
    journal.put_endpoints([an_endpoint("192.168.1.7", "fd00::7")])
    journal.put_endpoints([an_endpoint("192.168.1.99", digit="f", fixed=True)])
    journal.put_endpoints([an_endpoint("10.0.0.5", digit="9", network=LOCALNET)])
    journal.remove_endpoints([an_endpoint().id])
    journal.close()
    journal = Journal(tmp_path)
    assert journal.last_address(STATICNET, 4) == parse_address("192.168.1.7")
    assert journal.last_address(STATICNET, 6) == parse_address("fd00::7")
    assert journal.last_address(LOCALNET, 4) == parse_address("10.0.0.5")
    journal.forget_network(STATICNET)
    journal.close()
    journal = Journal(tmp_path)
    assert journal.last_address(STATICNET, 4) is None
    assert journal.last_address(LOCALNET, 4) == parse_address("10.0.0.5")
    journal.close()


def test_writing_an_endpoint_again_does_not_turn_the_hand_out_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first = an_endpoint("192.168.1.7", state=EndpointState.ATTACHING)
    journal.put_endpoints([first])
    journal.put_endpoints([an_endpoint("192.168.1.8", digit="f")])
    journal.put_endpoints([replace(first, state=EndpointState.ATTACHED)])
    assert journal.last_address(STATICNET, 4) == parse_address("192.168.1.8")
    journal.close()


def test_what_cannot_be_written_whole_is_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a")
    journal.put_container(WEB)
    thief = replace(WEB, id=ContainerId("e" * 64))
    with pytest.raises(sqlite3.IntegrityError):
        journal.put_endpoints([an_endpoint("192.168.1.7")], container=thief)
    again = killed(journal, tmp_path / "a", tmp_path / "b")
    for each in (journal, again):
        assert (each.endpoints, list(each.containers)) == ({}, [WEB.id])
        each.close()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal._database.execute("PRAGMA max_page_count = 1")
    with pytest.raises(EnvironmentProblem, match="the journal cannot be written: database or disk is full"):
        journal.put_endpoints(an_endpoint("192.168.1.7", digit=d) for d in "0123456789abcdef")
    assert journal.endpoints == {}
    journal.close()


def test_a_second_agent_with_the_same_directory_is_refused_by_name(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(EnvironmentProblem) as caught:
        Journal(tmp_path)
    assert caught.value.message == f"another agent is running with the state directory {tmp_path}"
    assert "--state-dir" in caught.value.hint
    journal.close()
    Journal(tmp_path).close()


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    Journal(tmp_path / "new").close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "journal.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Journal(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_a_damaged_file_is_named_with_the_way_out_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, " * 1000)
    for _ in range(2):  # the lock is let go, so the second attempt says the same
        with pytest.raises(EnvironmentProblem, match=r"journal\.db cannot be read") as caught:
            Journal(tmp_path)
        assert caught.value.hint == "restore it, or move it away"
    assert path.read_bytes() == b"not a database, " * 1000


def _filled(directory: Path) -> Path:
    journal = Journal(directory)
    journal.put_endpoints([an_endpoint("192.168.1.7", digit=d) for d in "0123456789abcdef"], container=WEB)
    journal.close()
    return directory / "journal.db"


def test_a_later_layout_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = _filled(tmp_path)
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(EnvironmentProblem) as caught:
        Journal(tmp_path)
    assert f"has layout {SCHEMA_VERSION + 1}, this agent knows {SCHEMA_VERSION}" in caught.value.message
    assert caught.value.hint == "use the netagent version that wrote it"
    assert path.read_bytes() == before


def test_what_a_later_version_wrote_into_a_row_is_kept_when_it_is_rewritten(tmp_path: Path) -> None:
    """An agent that was downgraded and upgraded again has lost nothing."""
    tables = ("endpoints", "containers", "docker_networks", "docker_pools")
    network = DockerNetwork(id="d" * 64, network_id=LOCALNET, digest="", subnets=())
    pool = DockerPool(id="p", subnet="10.1.0.0/16")
    journal = Journal(tmp_path)
    journal.put_endpoints([ONE], container=WEB)
    journal.docker.put_network(network)
    journal.docker.put_pool(pool)
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        for table in tables:
            database.execute(f"UPDATE {table} SET record = CAST(json_set(record, '$.later', 7) AS BLOB)")
    database.close()
    journal = Journal(tmp_path)
    assert (journal.endpoints[ONE.id], journal.containers[WEB.id]) == (ONE, WEB)
    journal.put_endpoints([replace(ONE, state=EndpointState.DETACHING)])
    journal.put_container(replace(WEB, hostname="changed"))
    journal.docker.put_network(network)
    journal.docker.put_pool(pool)
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        rows = [database.execute(f"SELECT record FROM {table}").fetchall() for table in tables]
    database.close()
    records = [json.loads(record) for ((record,),) in rows]
    assert (records[0]["state"], records[1]["hostname"]) == ("detaching", "changed")
    assert [record["later"] for record in records] == [7, 7, 7, 7]


DAMAGE = {
    "endpoint": "UPDATE endpoints SET record = x'7b'",
    "endpoint of a later version": "UPDATE endpoints SET record = CAST(json_set(record, '$.v', 2) AS BLOB)",
    "container": "UPDATE containers SET record = x'7b'",
    "cursor": "INSERT INTO cursors VALUES ('x', 4, 'nowhere')",
    "other tables": "DROP TABLE containers",
}


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE)
def test_rows_that_cannot_be_read_are_a_damaged_journal(tmp_path: Path, statement: str) -> None:
    with sqlite3.connect(_filled(tmp_path)) as database:
        database.execute(statement)
    database.close()
    for _ in range(2):
        with pytest.raises(EnvironmentProblem, match=r"journal\.db cannot be read"):
            Journal(tmp_path)


def test_a_page_that_was_overwritten_is_a_damaged_journal(tmp_path: Path) -> None:
    path = _filled(tmp_path)
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xa5" * 4096
    path.write_bytes(content)
    with pytest.raises(EnvironmentProblem, match=r"journal\.db cannot be read"):
        Journal(tmp_path)


def test_the_endpoints_of_one_moment_stay_as_they_were(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put_endpoints([ONE])
    before = journal.endpoints
    assert journal.endpoints is before
    journal.put_endpoints([OTHER])
    journal.remove_endpoints([ONE.id])
    assert (list(before), list(journal.endpoints)) == ([ONE.id], [OTHER.id])
    assert journal.endpoints_of(ONE.container_id) == (OTHER,)
    journal.close()


def test_an_endpoint_may_change_its_container(tmp_path: Path) -> None:
    """Docker says only when it joins a sandbox whose endpoint it is, and takes it back when it leaves."""
    journal = Journal(tmp_path)
    nobody = ContainerId("0" * 64)
    journal.put_endpoints([replace(ONE, container_id=nobody)])
    journal.put_endpoints([ONE], container=WEB)
    assert journal.endpoints_of(nobody) == ()
    assert journal.endpoints_of(ONE.container_id) == (ONE,)
    journal.remove_endpoints([ONE.id])
    assert journal.endpoints_of(ONE.container_id) == ()
    journal.close()
