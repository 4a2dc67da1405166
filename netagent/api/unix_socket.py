"""The agent's unix sockets: who may connect, what is done about one that an earlier agent left, how they end."""

import asyncio
import grp
import os
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netagent.errors import Conflict, InvalidRequest

GROUP = "netagent"
"""Members of this group may do what root may, if the machine has the group."""

_UCRED = struct.Struct("=3i")
"""struct ucred: pid, uid, gid."""

_PATH_LIMIT = 107
"""Bytes of a socket's path: ``sun_path`` without its NUL, unix(7)."""


def prepare_directory(directory: Path) -> None:
    """Make ``directory``, open to root and the group only; one that exists keeps its owner and mode."""
    try:
        directory.mkdir(parents=True, mode=0o750)
    except FileExistsError:
        return
    directory.chmod(0o750)
    _give_to_group(directory)


@contextmanager
def listening_at(path: Path) -> Iterator[None]:
    """Bind a socket at ``path`` inside this block: it then belongs to root and the group alone, from the first moment.

    A socket that nobody listens at is removed before. Conflict if somebody does.
    """
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise InvalidRequest(f"socket path is longer than {_PATH_LIMIT} bytes: {path}", hint="use a shorter --run-dir")
    prepare_directory(path.parent)
    _remove_stale(path)
    before = os.umask(0o117)
    try:
        yield
    finally:
        os.umask(before)
    _give_to_group(path)


def bound_socket(path: Path, mode: int = 0o660) -> socket.socket:
    """Return a socket at ``path`` with ``mode``; nobody can connect before it listens. Conflict if somebody listens."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with listening_at(path):
            listener.bind(str(path))
        path.chmod(mode)
    except BaseException:
        listener.close()
        raise
    return listener


def peer_process(connection: socket.socket) -> int:
    """Return the process at the other end, 0 if it is of another pid namespace (SO_PEERCRED, unix(7))."""
    process: int = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    return process


class Connections:
    """The conversations that go on at one socket, so that a stop can let them end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add_current(self) -> None:
        """Count the task that calls this until it is done."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Wait for all to end; cancel those that have not within ``seconds``."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            pass  # Somebody listens and does not take connections now.
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
            return
    raise Conflict(f"another agent is listening at {path}", hint="stop it first, or use another --run-dir")


def _give_to_group(path: Path) -> None:
    with suppress(KeyError):
        shutil.chown(path, group=grp.getgrnam(GROUP).gr_gid)
