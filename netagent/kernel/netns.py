"""Network namespaces: opening, checking, entering, making and letting go. The only code that calls setns or unshare.

Both calls change the calling thread alone. A netlink socket belongs for ever to the namespace in which it was opened,
so a visit lasts as long as opening one takes (about 5 us), and no code of ours runs for long in a stranger's namespace.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from netagent import failpoint
from netagent.errors import AlreadyExists, Bug, EnvironmentProblem, InvalidRequest, NotFound, Unavailable

_T = TypeVar("_T")

_CLONE_NEWNET = 0x40000000
_NSFS_MAGIC = 0x6E736673
_NS_GET_NSTYPE = 0xB703
"""ioctl of linux/nsfs.h: the CLONE_NEW… flag of the namespace behind a descriptor."""
_MS_BIND = 0x1000
_MNT_DETACH = 2
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EIO})
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_char_p)


@dataclass(frozen=True, slots=True)
class Namespace:
    """An open network namespace; ``inode`` identifies it on this machine until its last user is gone."""

    fd: int
    inode: int

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def open_namespace(path: str) -> Namespace:
    """Open the network namespace at ``path``. Never blocks and opens nothing but a namespace.

    Raises NotFound if nothing is there, InvalidRequest if it is something else.
    """
    # O_PATH first: opening a FIFO may block and opening a device may act (a watchdog starts to count).
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        raise NotFound(f"network namespace {path} does not exist", netns=path) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _EXHAUSTED:
            # Says nothing about the path: whoever asks whether it is gone must not take this for a yes.
            raise Unavailable(f"cannot open network namespace {path}: {error.strerror}") from None
        raise InvalidRequest(f"cannot open network namespace {path!r}: {error}", netns=path) from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode) or _file_system(handle) != _NSFS_MAGIC:
            raise InvalidRequest(
                f"{path} is not a namespace", hint="give /proc/<pid>/ns/net or a name in /run/netns", netns=path
            )
        fd = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(handle)
    if fcntl.ioctl(fd, _NS_GET_NSTYPE) != _CLONE_NEWNET:
        os.close(fd)
        raise InvalidRequest(f"{path} is a namespace, but not a network namespace", netns=path)
    return Namespace(fd, os.fstat(fd).st_ino)


def open_own_namespace() -> Namespace:
    """Open the network namespace that the calling thread is in."""
    fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    return Namespace(fd, os.fstat(fd).st_ino)


def enter(namespace: Namespace) -> None:
    """Move the calling thread into ``namespace``."""
    if _libc.setns(namespace.fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise EnvironmentProblem(
            f"cannot enter a network namespace: {os.strerror(number)}", hint="the agent needs CAP_SYS_ADMIN"
        )


def call_inside(namespace: Namespace, home: Namespace, function: Callable[[], _T]) -> _T:
    """Return ``function()`` called while this thread is in ``namespace``; it returns to ``home`` in any case."""
    enter(namespace)
    try:
        return function()
    finally:
        if _libc.setns(home.fd, _CLONE_NEWNET):
            raise Bug(f"cannot return to the agent's network namespace: {os.strerror(ctypes.get_errno())}")


def failpoints() -> Iterator[str]:
    """Yield the names of the crash points in this module."""
    for effect in ("create_sandbox", "delete_sandbox"):
        yield from (f"kernel.{effect}.before", f"kernel.{effect}.after")


def create_namespace(path: str, prepare: Callable[[], None]) -> int:
    """Make a network namespace, call ``prepare`` in it, and keep it by a bind mount at ``path``; return its inode.

    An empty file at ``path``, as a crash may leave, is used; anything else there raises AlreadyExists.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o444))
    except FileExistsError:
        if not _is_empty_file(path):
            raise AlreadyExists(f"{path} is in use", hint="delete it or choose another path") from None
    failpoint.reach("kernel.create_sandbox.before")
    inode = _on_throwaway_thread(lambda: _unshare_and_mount(path, prepare))
    failpoint.reach("kernel.create_sandbox.after")
    return inode


def delete_namespace(path: str) -> None:
    """Let go of the namespace kept at ``path``. Absence is no error; whatever else is at ``path`` stays."""
    failpoint.reach("kernel.delete_sandbox.before")
    while _is_namespace_mount(path):
        if _libc.umount2(path.encode(), _MNT_DETACH):
            raise EnvironmentProblem(f"cannot unmount {path}: {os.strerror(ctypes.get_errno())}")
    if _is_empty_file(path):
        with contextlib.suppress(FileNotFoundError):
            Path(path).unlink()
    failpoint.reach("kernel.delete_sandbox.after")


def _unshare_and_mount(path: str, prepare: Callable[[], None]) -> int:
    if _libc.unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise EnvironmentProblem(
            f"cannot make a network namespace: {os.strerror(number)}", hint="the agent needs CAP_SYS_ADMIN"
        )
    prepare()
    if _libc.mount(_OWN.encode(), path.encode(), b"none", _MS_BIND, None):
        number = ctypes.get_errno()
        raise EnvironmentProblem(f"cannot mount a network namespace at {path}: {os.strerror(number)}")
    return Path(_OWN).stat().st_ino


def _on_throwaway_thread(function: Callable[[], _T]) -> _T:
    """Return ``function()`` called on a thread of its own, which ends with whatever namespace it is in by then."""
    results: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name="netagent-unshare")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _file_system(fd: int) -> int:
    # struct statfs begins with f_type, a long; 256 bytes are more than any architecture's whole struct.
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return ctypes.c_long.from_buffer(buffer).value


def _is_namespace_mount(path: str) -> bool:
    try:
        return os.lstat(path).st_dev == Path(_OWN).stat().st_dev
    except OSError:
        return False


def _is_empty_file(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0 and not _is_namespace_mount(path)
