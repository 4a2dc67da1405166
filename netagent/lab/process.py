"""Processes that outlive the command that started them, and how they are found again and ended.

A process is known by its pid and its start time, so that a pid which has gone to somebody else is never signalled.
It begins its work only once its identity is written down: until then it waits on a pipe, whose end it also sees
when the writer is killed. So there is no moment at which something runs that ``lab down`` would not find.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from netagent.errors import Unavailable

_WAIT_FOR_GO = 'cd / && read -r _ && exec "$@" </dev/null'
_RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_UNKILLABLE_AFTER_S = 30.0
_children: set[int] = set()
"""What this program has started here and not yet waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """One process of this boot: ``started`` is in clock ticks since boot (field 22 of /proc/PID/stat, proc(5))."""

    pid: int
    started: int


def spawn(argv: Sequence[str], *, env: Mapping[str, str], log: Path, record: Callable[[ProcessId], None]) -> ProcessId:
    """Start ``argv`` in a session of its own, its output appended to ``log``, after ``record`` has noted who it is."""
    reading, writing = os.pipe()
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _WAIT_FOR_GO, "sh", *argv],
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reading, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigdef=_RESET_SIGNALS,
        )
        _children.add(pid)
        process = ProcessId(pid=pid, started=_stat(pid).started)
        record(process)
        os.write(writing, b"\n")
    finally:
        os.close(reading)
        os.close(writing)
    return process


def alive(process: ProcessId) -> bool:
    """Whether that very process still runs; one that ended and was not waited for does not."""
    handle = _open(process)
    if handle is None:
        return False
    try:
        return not _ended(handle)
    finally:
        os.close(handle)


def send(process: ProcessId, number: signal.Signals) -> None:
    """Signal that very process; one that is gone is no error."""
    handle = _open(process)
    if handle is not None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        os.close(handle)


def end(processes: Iterable[ProcessId], *, within_s: float) -> None:
    """End all of them at once: SIGTERM, and SIGKILL to those that run on after ``within_s``; 0 skips the SIGTERM.

    Returns when none is left. Raises Unavailable if the kernel does not let one go.
    """
    handles = [handle for handle in map(_open, processes) if handle is not None]
    try:
        left = handles
        if within_s > 0:
            _send_all(left, signal.SIGTERM)
            _send_all(left, signal.SIGCONT)  # a paused process would take the SIGTERM only when resumed
            left = _wait(left, within_s)
        _send_all(left, signal.SIGKILL)
        if _wait(left, _UNKILLABLE_AFTER_S):
            raise Unavailable("a process of the lab does not die", hint="it hangs in the kernel; see dmesg")
    finally:
        for handle in handles:
            os.close(handle)
        _reap()


def wait(process: ProcessId, *, within_s: float) -> bool:
    """Wait for that process to end; False if it runs on."""
    handle = _open(process)
    if handle is None:
        return True
    try:
        return not _wait([handle], within_s)
    finally:
        os.close(handle)
        _reap()


def family(belongs: Callable[[int], bool]) -> list[ProcessId]:
    """Return the processes for which ``belongs(pid)`` holds, and all that descend from them, without ourselves."""
    stats = {pid: stat for pid in _pids() if (stat := _stat_or_none(pid)) is not None}
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    pending = [pid for pid in stats if belongs(pid)]
    found: set[int] = set()
    while pending:
        pid = pending.pop()
        if pid not in found:
            found.add(pid)
            pending.extend(children.get(pid, ()))
    found.discard(os.getpid())
    return [ProcessId(pid=pid, started=stats[pid].started) for pid in sorted(found) if not stats[pid].ended]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stat:
    parent: int
    started: int
    ended: bool


def _stat(pid: int) -> _Stat:
    # The name, in parentheses, may hold spaces and parentheses itself: what follows the last one is fixed.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return _Stat(parent=int(fields[1]), started=int(fields[19]), ended=fields[0] in "ZX")


def _stat_or_none(pid: int) -> _Stat | None:
    try:
        return _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdecimal()]


def _open(process: ProcessId) -> int | None:
    """Return a pidfd of that very process: what it refers to cannot change any more, unlike a pid."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    stat = _stat_or_none(process.pid)
    if stat is None or stat.started != process.started:
        os.close(handle)
        return None
    return handle


def _send_all(handles: Iterable[int], number: signal.Signals) -> None:
    for handle in handles:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)


def _wait(handles: Sequence[int], within_s: float) -> list[int]:
    """Wait until all have ended, at most ``within_s``; return those that have not."""
    deadline = time.monotonic() + within_s
    left = [handle for handle in handles if not _ended(handle)]
    while left and (remaining := deadline - time.monotonic()) > 0:
        poll = select.poll()
        for handle in left:
            poll.register(handle, select.POLLIN)
        poll.poll(remaining * 1000)
        left = [handle for handle in left if not _ended(handle)]
    return left


def _ended(handle: int) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(0))


def _reap() -> None:
    """Wait for those of our own children that have ended; other children of this program are not ours to wait for."""
    for pid in tuple(_children):
        with suppress(ChildProcessError):  # another thread was faster
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _children.discard(pid)
