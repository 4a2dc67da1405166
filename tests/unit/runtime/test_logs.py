import asyncio
from pathlib import Path

import pytest

from netagent.errors import NotFound
from netagent.runtime import logs
from netagent.runtime.logs import LogRecord

STAMP = "2026-11-21T04:09:41.863400148+00:00"


def line(text: str, *, stream: str = "stdout", tag: str = "F") -> bytes:
    return f"{STAMP} {stream} {tag} {text}\n".encode()


def texts(log: Path, tail: int | None = None) -> list[bytes]:
    return [record.data for record in logs.read(log, tail=tail)]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.write_bytes(line("one") + line("two ", stream="stderr") + line("thr", tag="P") + line("ee") + line("four"))
    return path


def test_lines_and_pieces_are_told_apart(log: Path) -> None:
    assert texts(log) == [b"one\n", b"two \n", b"thr", b"ee\n", b"four\n"]


def test_a_record_has_stream_and_time_in_utc(log: Path) -> None:
    assert list(logs.read(log))[1] == LogRecord(time="2026-11-21T04:09:41.863400148Z", stream="stderr", data=b"two \n")


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (0, []),
        (1, [b"four\n"]),
        (2, [b"thr", b"ee\n", b"four\n"]),
        (4, [b"one\n", b"two \n", b"thr", b"ee\n", b"four\n"]),
        (99, [b"one\n", b"two \n", b"thr", b"ee\n", b"four\n"]),
    ],
)
def test_the_tail_counts_full_lines(log: Path, tail: int, expected: list[bytes]) -> None:
    assert texts(log, tail) == expected


def test_the_tail_is_found_across_blocks(log: Path) -> None:
    long = "x" * 50_000
    log.write_bytes(b"".join(line(f"{number} {long}") for number in range(10)))
    assert [data.split()[0] for data in texts(log, 3)] == [b"7", b"8", b"9"]


def test_binary_output_survives(log: Path) -> None:
    log.write_bytes(STAMP.encode() + b" stdout F \xff\x00 \r\x85\n")
    assert texts(log, 1) == [b"\xff\x00 \r\x85\n"]


def test_the_tail_is_not_misled_by_carriage_returns(log: Path) -> None:
    log.write_bytes(line("before") + line("10%\ra b F 20%\r"))
    assert texts(log, 1) == [b"10%\ra b F 20%\r\n"]


def test_a_line_cut_short_is_skipped(log: Path) -> None:
    log.write_bytes(b"garbage\n" + line("whole") + b"2026-11-21T04:09")
    assert texts(log) == [b"whole\n"]


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no log at"):
        list(logs.read(tmp_path / "none"))


async def test_follow_yields_what_comes_and_ends_when_told(log: Path) -> None:
    end = asyncio.Event()
    seen = []
    async for record in logs.follow(log, until=end.wait(), tail=1):
        seen.append(record.data)
        if record.data == b"four\n":
            with log.open("ab") as file:
                file.write(line("five")[:-3])
        if record.data == b"five\n":
            end.set()
        if len(seen) == 1:
            with log.open("ab") as file:
                file.write(line("five")[-3:])
    assert seen == [b"four\n", b"five\n"]


async def test_follow_goes_on_in_the_file_that_replaces_a_full_one(log: Path) -> None:
    end = asyncio.Event()
    seen = []
    async for record in logs.follow(log, until=end.wait(), tail=1):
        seen.append(record.data)
        if record.data == b"four\n":
            with log.open("ab") as file:
                file.write(line("last"))
            fresh = log.with_suffix(".tmp")
            fresh.write_bytes(line("first"))
            fresh.rename(log)
        if record.data == b"first\n":
            end.set()
    assert seen == [b"four\n", b"last\n", b"first\n"]
