"""Reading what conmon logged of a container: lines of ``TIME STREAM TAG TEXT``, tag F for a full line, P for a piece.

The format is Kubernetes' CRI log format; conmon writes it in ``write_k8s_log`` (``src/ctr_logging.c``). At the size
limit conmon puts an empty file into the place of the full one.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from netagent.errors import NotFound

POLL_S = 0.1
_BLOCK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """A line of the container's output, or a piece of one if ``data`` lacks the newline.

    ``time`` is RFC 3339 with nanoseconds in UTC, ``stream`` "stdout" or "stderr".
    """

    time: str
    stream: str
    data: bytes


def parse_record(line: bytes) -> LogRecord | None:
    """Return the record of one line of the log without its newline; None for a line that was cut short."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P"):
        return None
    time, stream, tag, data = parts
    return LogRecord(
        # conmon runs with TZ=UTC and writes that as an offset.
        time=time.decode(errors="replace").replace("+00:00", "Z"),
        stream=stream.decode(errors="replace"),
        data=data + b"\n" if tag == b"F" else data,
    )


def read(log: Path, *, tail: int | None = None) -> Iterator[LogRecord]:
    """Yield what is logged now, or its last ``tail`` lines; NotFound if there is no log."""
    with _open(log) as file:
        if tail is not None:
            file.seek(_tail_offset(file, tail))
        yield from _records(file)


async def follow(log: Path, *, until: Awaitable[object], tail: int | None = None) -> AsyncIterator[LogRecord]:
    """Yield what is logged, then every further record until ``until`` is done and all is read.

    Looks every 0.1 s: a log is followed by people, and there is no event without a watch per follower.
    """
    end = asyncio.ensure_future(until)
    file = _open(log)
    try:
        if tail is not None:
            file.seek(_tail_offset(file, tail))
        while True:
            is_last = end.done()
            for record in _records(file):
                yield record
            if replacement := _replacement(log, file):
                for record in _records(file):
                    yield record
                file.close()
                file = replacement
            elif is_last:
                return
            else:
                await asyncio.wait([end], timeout=POLL_S)
    finally:
        file.close()
        end.cancel()


def _open(log: Path) -> BinaryIO:
    try:
        return log.open("rb")
    except FileNotFoundError as error:
        raise NotFound(f"there is no log at {log}") from error


def _records(file: BinaryIO) -> Iterator[LogRecord]:
    """Yield the whole records from here on; a line still being written is left for the next call."""
    while True:
        start = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(start)
            return
        if record := parse_record(line[:-1]):
            yield record


def _replacement(log: Path, file: BinaryIO) -> BinaryIO | None:
    """Return the file that now lies at ``log`` if it is another one, open."""
    try:
        if os.path.samestat(log.stat(), os.fstat(file.fileno())):
            return None
        return log.open("rb")
    except FileNotFoundError:
        return None


def _tail_offset(file: BinaryIO, lines: int) -> int:
    """Return where the last ``lines`` full lines begin, with the pieces that belong to them."""
    position = file.seek(0, os.SEEK_END)
    tail = b""
    while position:
        size = min(_BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        tail = file.read(size) + tail
        # The first line of what was read may have begun earlier, unless this is the whole file.
        begin = tail.find(b"\n") + 1 if position else 0
        if (offset := _nth_line_from_end(tail, begin, lines)) is not None:
            return position + offset
    return 0


def _nth_line_from_end(text: bytes, begin: int, lines: int) -> int | None:
    """Return the offset after the full line that precedes the last ``lines`` ones, or None if it is not in ``text``."""
    full, end = 0, len(text)
    while end > begin:
        start = max(text.rfind(b"\n", begin, end - 1) + 1, begin)
        if text[start:end].split(b" ", 3)[2:3] == [b"F"]:
            full += 1
            if full > lines:
                return end
        end = start
    return None
