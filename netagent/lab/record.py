"""What a lab wrote down about itself: ``/run/netagent-lab/<name>/lab.json``."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from netagent.errors import AlreadyExists, Conflict, NotFound
from netagent.lab.layout import Layout, parse_name
from netagent.lab.process import ProcessId

LABS = Path("/run/netagent-lab")
_RECORD = "lab.json"
LOCK_WITHIN_S = 20.0


@dataclass(slots=True, kw_only=True)
class Record:
    """The size of a lab and the processes it started, by role: ``h1/holder``, ``h1/agent``, ``e1/etcd``."""

    layout: Layout
    boot_id: str
    processes: dict[str, ProcessId] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Where the record and the logs of the lab are."""
        return LABS / self.layout.name

    def note(self, role: str, process: ProcessId) -> None:
        """Write down that ``process`` has this role now."""
        self.processes[role] = process
        self.save()

    def forget(self, role: str) -> None:
        """Write down that nobody has this role any more."""
        self.processes.pop(role, None)
        self.save()

    def save(self) -> None:
        """Replace the file at once: a reader, and a crash, see the old record or the new one."""
        aside = self.directory / f"{_RECORD}.{os.getpid()}"
        aside.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))
        aside.replace(self.directory / _RECORD)


def create(layout: Layout) -> Record:
    """Make the directory and the record of a new lab; AlreadyExists if there is one of that name.

    The caller holds the lock of that name.
    """
    record = Record(layout=layout, boot_id=_boot_id())
    if (record.directory / _RECORD).exists():
        raise AlreadyExists(
            f"lab {layout.name!r} exists already",
            hint=f"`netagent lab down --lab {layout.name}` removes it, `--lab NAME` makes another beside it",
        )
    record.directory.mkdir(mode=0o755, exist_ok=True)
    record.save()
    return record


def read(name: str) -> Record:
    """Return the record of the lab ``name``; NotFound if there is none.

    After a reboot the processes are gone and their pids belong to others: the record then names none.
    """
    try:
        content = (LABS / parse_name(name) / _RECORD).read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"no lab named {name!r}", hint="`netagent lab ls` shows them, `netagent lab up` makes one"
        ) from None
    record = msgspec.json.decode(content, type=Record)
    if record.boot_id != _boot_id():
        record.processes.clear()
    return record


def names() -> list[str]:
    """Return the names of all labs of this machine."""
    with suppress(FileNotFoundError):  # also while it is listed: it goes with the last lab
        return sorted(record.parent.name for record in LABS.glob(f"*/{_RECORD}"))
    return []


@contextmanager
def locked(name: str = "") -> Iterator[None]:
    """Keep others from changing the lab ``name`` meanwhile; without a name, from making or removing mount points.

    Raises Conflict if somebody else holds the lock for longer than a healthy change takes.
    """
    path = LABS / f".lock{name}"
    handle = _lock(path, name)
    try:
        yield
    finally:
        path.unlink()
        os.close(handle)
        with suppress(OSError):  # not empty: other labs are there
            LABS.rmdir()


def _lock(path: Path, name: str) -> int:
    deadline = time.monotonic() + LOCK_WITHIN_S
    while time.monotonic() < deadline:
        LABS.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # the directory went away with the last lab, just now
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            if _holds(handle, path):
                return handle
            os.close(handle)
        time.sleep(0.05)
    busy = f"lab {name!r} is being changed by another command" if name else "another lab command is at work"
    raise Conflict(busy, hint="wait for it, or end it, and try again")


def _holds(handle: int, path: Path) -> bool:
    """Whether the lock is ours: taken, and on the file that others will find, as who lets go of it removes it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(handle).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
