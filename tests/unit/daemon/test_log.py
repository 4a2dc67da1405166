"""The log is written by a thread of its own: who does not read it holds nobody up, and hears what was lost."""

import logging
import os
from collections.abc import Iterator

import pytest

from netagent.daemon.log import PatientHandler


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("netagent", logging.INFO, __file__, 1, text, None, None)


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = PatientHandler(writer)
    for number in range(10):
        handler.emit(record(f"line {number}"))
    heard = b""
    while heard.count(b"\n") < 10:
        heard += os.read(reader, 65536)
    assert [line.rpartition(": ")[2] for line in heard.decode().splitlines()] == [
        f"line {number}" for number in range(10)
    ]


def test_what_is_flushed_is_written(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.daemon.log.LAST_WORDS_S", 60)
    reader, writer = pipe
    handler = PatientHandler(writer)
    for _ in range(100):
        handler.emit(record("line"))
    handler.flush()
    assert os.read(reader, 65536).count(b"\n") == 100


def test_what_nobody_reads_is_counted_and_told(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.daemon.log.QUEUED_LINES", 100)
    monkeypatch.setattr("netagent.daemon.log.LAST_WORDS_S", 0.01)
    reader, writer = pipe
    handler = PatientHandler(writer)
    for _ in range(1000):
        handler.emit(record("x" * 1000))
    handler.flush()
    heard = b""
    while b"were lost" not in heard:
        heard += os.read(reader, 65536)
    (told,) = [line for line in heard.decode().splitlines() if "lines of the log were lost" in line]
    assert 100 < int(told.split()[0]) < 1000


def test_a_reader_that_has_gone_is_no_error(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = PatientHandler(writer)
    os.dup2(os.open("/dev/full", os.O_WRONLY), writer)
    handler.emit(record("lost"))
    handler.flush()
    assert os.read(reader, 1) == b""
