"""The container's root: a temporary overlay, so that neither the host's root nor a ``--rootfs`` directory changes.

Every container has a tmpfs of its own that holds the overlay's upper layer, its work directory and its mount point.
Thus the file system of the run directory never has to serve as an upper layer (one that is an overlay itself cannot),
a container that writes much fills its own tmpfs (by default half of the memory) instead of ``/run``, and one detached
unmount removes everything.
"""

import ctypes
import os
from pathlib import Path

from netagent import failpoint
from netagent.errors import EnvironmentProblem, InvalidRequest

MNT_DETACH = 2
"""include/linux/fs.h; also takes what is mounted below."""

_libc = ctypes.CDLL(None, use_errno=True)


def merged(directory: Path) -> Path:
    """Return where the root of the container kept in ``directory`` is mounted."""
    return directory / "root" / "merged"


def mount_root(directory: Path, lower: str | None) -> Path:
    """Mount the root over ``lower`` (None: the host's root) and return its path; keep one that is mounted.

    What the container wrote stays until ``unmount_root``, so that stop and start do not lose it.
    """
    layers, root = directory / "root", merged(directory)
    if os.path.ismount(root):
        return root
    source = lower or "/"
    if not Path(source).is_dir():
        raise InvalidRequest(f"root file system {source!r} is not a directory", hint="--rootfs takes a directory")
    unmount_root(directory)
    failpoint.reach("runtime.mount.before")
    layers.mkdir(mode=0o700, exist_ok=True)
    _mount("tmpfs", layers, "tmpfs", "mode=700")
    for name in ("upper", "work", "merged"):
        (layers / name).mkdir(mode=0o755)
    (layers / "upper").chmod(Path(source).stat().st_mode & 0o7777)
    options = f"lowerdir={_escape(source)},upperdir={_escape(layers / 'upper')},workdir={_escape(layers / 'work')}"
    try:
        _mount("overlay", root, "overlay", options)
    except EnvironmentProblem:
        unmount_root(directory)
        raise
    failpoint.reach("runtime.mount.after")
    return root


def unmount_root(directory: Path) -> None:
    """Remove the root and all that was written to it; one that is not mounted is no error."""
    layers = directory / "root"
    while os.path.ismount(layers):
        if _libc.umount2(os.fsencode(layers), MNT_DETACH):
            reason = os.strerror(ctypes.get_errno())
            raise EnvironmentProblem(f"cannot unmount {layers}: {reason}", hint="the agent needs CAP_SYS_ADMIN")


def _mount(source: str, target: Path, kind: str, options: str) -> None:
    """mount(2) without flags; its data is cut at one page."""
    arguments = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(0), os.fsencode(options))
    if _libc.mount(*arguments):
        reason = os.strerror(ctypes.get_errno())
        raise EnvironmentProblem(
            f"cannot mount {kind} at {target} with {options!r}: {reason}",
            hint="netagent run needs CAP_SYS_ADMIN, and overlayfs over the container's root (see the kernel log)",
        )


def _escape(path: str | Path) -> str:
    """Write ``path`` as overlayfs reads it: colons and commas separate (Documentation/filesystems/overlayfs.rst)."""
    return "".join(f"\\{letter}" if letter in "\\:," else letter for letter in str(path))
