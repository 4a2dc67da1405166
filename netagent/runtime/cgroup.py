"""Removing a container's cgroups. The OCI runtime does it, unless it was killed while it created the container."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from netagent.errors import Unavailable
from netagent.model.ids import ContainerId, short
from netagent.runtime.bundle import cgroup_path

_MOUNT = Path("/sys/fs/cgroup")
_DEADLINE_S = 30.0


async def remove(container_id: ContainerId) -> None:
    """Remove the container's cgroups, killing what is left in them; none is no error."""
    deadline = asyncio.get_running_loop().time() + _DEADLINE_S
    while left := [path for path in _paths(container_id) if not _remove_empty(path)]:
        for path in left:
            _kill_members(path)
        if asyncio.get_running_loop().time() > deadline:
            raise Unavailable(f"cgroup {left[0]} of container {short(container_id)} does not become empty")
        await asyncio.sleep(0.01)


def _paths(container_id: ContainerId) -> Iterator[Path]:
    """Yield the cgroups that exist: one in cgroup v2, one below each controller in v1 and the hybrid layout."""
    name = cgroup_path(container_id).lstrip("/")
    yield from _MOUNT.glob(name)
    yield from _MOUNT.glob(f"*/{name}")


def _remove_empty(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill_members(path: Path) -> None:
    try:
        pids = (path / "cgroup.procs").read_text().split()
    except OSError:
        return
    for pid in pids:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
