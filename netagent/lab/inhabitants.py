"""Which processes run on a machine of the lab. Pids are shared with the real machine; namespaces tell them apart.

Namespaces and file systems are compared by numbers that the kernel gives away again once the thing is gone, so only
numbers of what something of ours holds at this moment count.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from netagent.lab import process
from netagent.lab.process import ProcessId

_Number = tuple[int, int]
"""Device and inode of a namespace."""


def find(netns: Path, holder: ProcessId | None, disks: Sequence[str]) -> list[ProcessId]:
    """Return all processes on the machine, containers included, but not its holder.

    A process is on it if it is in the machine's network namespace, in one that only this machine keeps mounted (a
    container's), if it sees one of the file systems ``disks``, which are mounted for this machine only, or if it
    descends from one that is.
    """
    nets = {_namespace(netns)}
    sees_disks: Callable[[int], bool] = _nobody
    if holder is not None:
        nets |= _mounted_networks(str(holder.pid)) - _mounted_networks("self")
        sees_disks = _seer({Path(f"/proc/{holder.pid}/root{disk}").stat().st_dev for disk in disks})
    nets -= {None, _of(os.getpid(), "net")}

    def is_here(pid: int) -> bool:
        return _of(pid, "net") in nets or sees_disks(pid)

    return [found for found in process.family(is_here) if found != holder]


def contained(running: Sequence[ProcessId], holder: ProcessId) -> list[ProcessId]:
    """Return those that see other files than the machine itself: the processes of containers."""
    own = _of(holder.pid, "mnt")
    return [found for found in running if _of(found.pid, "mnt") not in (own, None)]


def _mounted_networks(pid: str) -> set[_Number | None]:
    """Return the network namespaces mounted as files in the mount namespace of ``pid``."""
    return {(device, int(root[len("net:[") : -1])) for device, root in _mounts(pid) if root.startswith("net:[")}


def _seer(devices: set[int]) -> Callable[[int], bool]:
    """Return a function that tells whether a process has a file of ``devices`` mounted; few namespaces, many pids."""
    devices = devices - {device for device, _ in _mounts("self")}
    known: dict[_Number, bool] = {}

    def is_seer(pid: int) -> bool:
        namespace = _of(pid, "mnt")
        if namespace is None:
            return False
        if namespace not in known:
            known[namespace] = any(device in devices for device, _ in _mounts(str(pid)))
        return known[namespace]

    return is_seer


def _nobody(pid: int) -> bool:
    return False


def _mounts(pid: str) -> list[tuple[int, str]]:
    """Return device and root, within its file system, of every mount that ``pid`` sees (proc(5), mountinfo)."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    except OSError:  # it has just ended (EINVAL for a zombie, ESRCH, ENOENT)
        return []
    found = []
    for line in lines:
        device, root = line.split()[2:4]
        major, minor = device.split(":")
        found.append((os.makedev(int(major), int(minor)), root))
    return found


def _of(pid: int, kind: str) -> _Number | None:
    return _namespace(Path(f"/proc/{pid}/ns/{kind}"))


def _namespace(file: Path) -> _Number | None:
    try:
        status = file.stat()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return status.st_dev, status.st_ino
