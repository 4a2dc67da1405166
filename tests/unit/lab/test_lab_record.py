"""The record of a lab on disk, and the mount points shared by all labs of a machine."""

from pathlib import Path

import pytest

from netagent.errors import AlreadyExists, Conflict, NotFound
from netagent.lab import mountpoints, record
from netagent.lab.layout import Layout
from netagent.lab.process import ProcessId

LAYOUT = Layout(name="blue", hosts=2, etcd=1, mtu=1500)


@pytest.fixture(autouse=True)
def labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where labs are kept during the test."""
    place = tmp_path / "labs"
    place.mkdir()
    monkeypatch.setattr(record, "LABS", place)
    monkeypatch.setattr(mountpoints, "LABS", place)
    return place


def test_record_is_read_back_as_it_was_written() -> None:
    written = record.create(LAYOUT)
    written.note("h1/agent", ProcessId(pid=7, started=99))
    assert record.read("blue") == written
    assert record.names() == ["blue"]


def test_second_lab_of_a_name_is_refused_with_the_way_out() -> None:
    record.create(LAYOUT)
    with pytest.raises(AlreadyExists, match="netagent lab down --lab blue"):
        record.create(LAYOUT)


def test_missing_lab_is_named() -> None:
    with pytest.raises(NotFound, match="'green'"):
        record.read("green")


def test_processes_of_an_earlier_boot_are_forgotten(labs: Path) -> None:
    written = record.create(LAYOUT)
    written.note("h1/agent", ProcessId(pid=7, started=99))
    written.boot_id = "an earlier one"
    written.save()
    assert record.read("blue").processes == {}


def test_lock_is_exclusive_and_leaves_no_file(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "LOCK_WITHIN_S", 0.1)
    with record.locked("blue"), pytest.raises(Conflict, match="'blue'"), record.locked("blue"):
        pass
    with record.locked("blue"):
        pass
    assert not labs.exists()


def test_mount_points_go_with_the_last_lab(tmp_path: Path) -> None:
    there = tmp_path / "etc"
    there.mkdir()
    wanted = [str(there / "cni"), str(tmp_path / "opt" / "cni" / "bin")]
    first = record.create(LAYOUT)
    mountpoints.provide(wanted)
    mountpoints.provide(wanted)
    mountpoints.withdraw()
    assert all(Path(path).is_dir() for path in wanted)
    (first.directory / "lab.json").unlink()
    mountpoints.withdraw()
    assert not (there / "cni").exists()
    assert not (tmp_path / "opt").exists()
    assert there.is_dir()


def test_mount_points_with_content_stay(tmp_path: Path) -> None:
    wanted = tmp_path / "docker"
    mountpoints.provide([str(wanted)])
    (wanted / "daemon.json").touch()
    mountpoints.withdraw()
    assert (wanted / "daemon.json").exists()
