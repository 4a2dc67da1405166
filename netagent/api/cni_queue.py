"""The queue of deletions that the plugin accepted while the agent was away: one file each, in the form of a request.

Its lock keeps a deletion from being left behind, to hit a later attachment of the same container at some later start:
the plugin writes under a shared lock after it has found nobody listening, and the agent holds the exclusive one from
before it reads the queue until it listens.
"""

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from netagent.api.cni_error import CniCode, CniError
from netagent.api.cni_request import REQUEST_LIMIT
from netagent.api.unix_socket import prepare_directory

log = logging.getLogger("netagent.cni")

LOCK_S = 5.0
"""How long a plugin may hold the lock; it takes milliseconds, unless somebody has stopped it."""

LINK = "cni-queue"
DEFAULT_SOCKET = Path("/run/netagent/cni.sock")
DEFAULT_QUEUE = Path("/var/lib/netagent/cni-queue")
"""As in the plugin."""

_HOPELESS = (
    CniCode.INCOMPATIBLE_VERSION,
    CniCode.UNSUPPORTED_FIELD,
    CniCode.INVALID_ENVIRONMENT,
    CniCode.IO_FAILURE,
    CniCode.DECODE_FAILURE,
    CniCode.INVALID_CONFIGURATION,
)
"""What the same request will be answered with for ever, so that its file is not kept."""


def queues_for(socket_path: Path, own: Path) -> list[Path]:
    """Return where deletions for the agent at ``socket_path`` may wait: its ``own`` queue first.

    A plugin that finds no link of an agent's beside the socket, as after a reboot, takes the default one.
    """
    found = [own]
    with suppress(OSError):
        found.append(link_at(socket_path).readlink())
    if socket_path == DEFAULT_SOCKET:
        found.append(DEFAULT_QUEUE)
    return list(dict.fromkeys(queue for queue in found if queue == own or queue.is_dir()))


def link_at(socket_path: Path) -> Path:
    """Return where the plugin looks for the link to the queue."""
    return socket_path.with_name(LINK)


def place_link(socket_path: Path, own: Path) -> None:
    """Tell the plugin where the queue is."""
    link = link_at(socket_path)
    aside = link.with_name(f".{LINK}")
    try:
        prepare_directory(link.parent)
        aside.unlink(missing_ok=True)
        aside.symlink_to(own.absolute())
        aside.replace(link)
    except OSError as error:
        log.error("the CNI plugin is not told that its queue is %s: %s: %s", own, link, error.strerror)


@asynccontextmanager
async def exclusive(directory: Path) -> AsyncIterator[None]:
    """Hold the exclusive lock of the queue in ``directory``, which is made if need be."""
    lock = _open_lock(directory)
    try:
        deadline = time.monotonic() + LOCK_S
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                log.warning("the lock of %s is held by another process; going on without it", directory)
                break
            await asyncio.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _open_lock(directory: Path) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def drain_queue(directory: Path, handler: Callable[[bytes], Awaitable[None]]) -> int:
    """Have every queued request carried out by ``handler``; return how many were.

    A request that failed, but may succeed later, stays for the next start.
    """
    done = 0
    for path in _waiting(directory):
        try:
            await handler(_read(path))
        except CniError as error:
            log.error("queued CNI request %s failed: %s", path.name, error.msg)
            if error.code not in _HOPELESS:
                continue
        else:
            done += 1
        with suppress(OSError):  # a directory, which is not of our making
            path.unlink()
    return done


def _waiting(directory: Path) -> list[Path]:
    """Return the queue's files; those that a killed plugin did not finish are removed."""
    for path in directory.glob(".*"):
        if path.name != ".lock":
            path.unlink()
    return sorted(path for path in directory.iterdir() if path.name != ".lock")


def _read(path: Path) -> bytes:
    """Return the content of a regular file; nothing else belongs here, and a FIFO would block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(REQUEST_LIMIT)
    except OSError as error:
        raise CniError(CniCode.IO_FAILURE, f"cannot read {path}: {error.strerror}") from None
