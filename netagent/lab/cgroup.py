"""The cgroups that containers of a lab's machine leave behind when the machine goes without stopping them.

Cgroups are the one thing of a container that is not in a namespace of the machine: nothing else removes them.
"""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
_WITHIN_S = 10.0


def of_process(pid: int) -> set[Path]:
    """Return the cgroups of a process, one of each hierarchy (cgroups(7), /proc/PID/cgroup)."""
    found = set()
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            found |= _directories(controllers.removeprefix("name="), path)
    return found


def of_container(container_id: str) -> set[Path]:
    """Return the cgroups that netagent made for a container, also when nothing runs in them any more."""
    name = f"netagent-{container_id}"
    return {*MOUNT.glob(name), *MOUNT.glob(f"*/{name}")}


def of_machine(name: str) -> set[Path]:
    """Return the cgroups that container runtimes of a lab's machine were told to put their containers into."""
    return {*MOUNT.glob(name), *MOUNT.glob(f"*/{name}")}


def remove(cgroups: Iterable[Path]) -> None:
    """Remove those cgroups, and what is below them, as far as no process is in them."""
    deadline = time.monotonic() + _WITHIN_S
    left = {Path(below) for cgroup in cgroups for below, _, _ in os.walk(cgroup)}
    while left:
        for cgroup in sorted(left, reverse=True):  # what is below comes first
            with suppress(OSError):  # a killed process leaves its cgroup a moment after it is gone
                cgroup.rmdir()
        left = {cgroup for cgroup in left if cgroup.exists()}
        if time.monotonic() > deadline:
            return
        if left:
            time.sleep(0.02)


def _directories(controllers: str, path: str) -> set[Path]:
    """Return where a hierarchy shows ``path``: v1 by its controllers, v2 at the top or (hybrid layout) in unified."""
    roots = [MOUNT / controllers] if controllers else [MOUNT, MOUNT / "unified"]
    return {found for root in roots if (found := root / path.lstrip("/")) != root and found.is_dir()}
