"""Room that is kept on the disk for removals: given when the disk is full, and laid down anew when it is not."""

import os
from pathlib import Path

import pytest

from netagent.errors import EnvironmentProblem
from netagent.store.journal import Journal
from netagent.store.reserve import RESERVE_BYTES, Reserve
from tests.support.world import an_endpoint


class Disk:
    """What is free on it, in bytes, as the reserve sees it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 10 * RESERVE_BYTES
        fallocate, truncate = os.posix_fallocate, os.truncate

        def taken(descriptor: int, offset: int, size: int) -> None:
            if size > self.free:
                raise OSError(28, "No space left on device")
            fallocate(descriptor, offset, size)

        def given(path: Path, size: int) -> None:
            if size == 0:
                self.free += RESERVE_BYTES
            truncate(path, size)

        monkeypatch.setattr("os.posix_fallocate", taken)
        monkeypatch.setattr("os.truncate", given)
        monkeypatch.setattr("os.statvfs", lambda _: os.statvfs_result((4096, 4096, 0, 0, self.free // 4096, *[0] * 6)))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_only_removals_are_written_on_a_full_disk_until_there_is_room(tmp_path: Path, disk: Disk) -> None:
    journal = Journal(tmp_path)
    one, other = an_endpoint("192.168.1.7", digit="1"), an_endpoint("192.168.1.8", digit="2")
    journal.put_endpoints((one,))
    disk.free = 0
    journal.remove_endpoints((one.id,))
    assert disk.free == RESERVE_BYTES
    with pytest.raises(EnvironmentProblem, match="the journal cannot be written: the disk is full"):
        journal.put_endpoints((other,))
    journal.close()
    journal = Journal(tmp_path)
    with pytest.raises(EnvironmentProblem, match="the journal cannot be written: the disk is full"):
        journal.put_endpoints((other,))
    journal.remove_endpoints((other.id,))
    disk.free = 2 * RESERVE_BYTES
    journal.put_endpoints((other,))
    assert (tmp_path / "journal.reserve").stat().st_size == RESERVE_BYTES
    journal.close()


def test_a_disk_that_is_too_small_for_a_reserve_has_none(tmp_path: Path, disk: Disk) -> None:
    disk.free = RESERVE_BYTES
    reserve = Reserve(tmp_path / "journal.reserve")
    reserve.give_way()
    assert reserve.restore()
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_for_root_alone_counts(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve(tmp_path / "journal.reserve")
    monkeypatch.setattr("os.statvfs", lambda _: os.statvfs_result((4096, 4096, 0, 0, 0, *[0] * 6)))
    reserve.give_way()
    assert reserve.restore()
    assert [path.name for path in tmp_path.iterdir()] == ["journal.reserve"]
