"""The programs that run containers, and what of our environment they get."""

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netagent.errors import EnvironmentProblem
from netagent.runtime.kernel_options import CAPABILITIES

SEARCH_PATH = ":".join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
"""Debian keeps runc in /usr/sbin, which is not on everybody's PATH."""


NEEDED = ("CAP_KILL", "CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT")
"""What the OCI runtime does its work with, whatever is left to the container."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The OCI runtime and conmon, as absolute paths."""

    runtime: str
    monitor: str


def find_programs(search_path: str = SEARCH_PATH) -> Programs:
    """Return the OCI runtime (runc, else crun) and conmon; EnvironmentProblem names the Debian package to install.

    runc first: crun refuses the hybrid layout of cgroups.
    """
    runtime = shutil.which("runc", path=search_path) or shutil.which("crun", path=search_path)
    if runtime is None:
        raise EnvironmentProblem("no OCI runtime on PATH: neither runc nor crun", hint="apt-get install runc")
    monitor = shutil.which("conmon", path=search_path)
    if monitor is None:
        raise EnvironmentProblem("conmon is not on PATH", hint="apt-get install conmon")
    return Programs(runtime=runtime, monitor=monitor)


def require_capabilities(wanted: Iterable[str], *, status: Path = Path("/proc/self/status")) -> None:
    """Raise EnvironmentProblem if we may not run a container with the capabilities ``wanted``.

    ``status`` tells ours: nothing that we start has more than the bounding set (capabilities(7)).
    """
    (bounding,) = re.findall(r"^CapBnd:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    held = {name for bit, name in enumerate(CAPABILITIES) if int(bounding, 16) >> bit & 1}
    lacking = [name for name in CAPABILITIES if name in {*wanted, *NEEDED} - held]
    if lacking:
        raise EnvironmentProblem(
            f"the agent may not run this container: it lacks {', '.join(lacking)}",
            hint="its systemd unit keeps them from it: make install RUN=yes, or run.conf (docs/install.md)",
        )


def environment() -> dict[str, str]:
    """Return what the programs inherit: no TMPDIR (conmon binds a socket there), no LISTEN_FDS, no secrets."""
    return {"PATH": SEARCH_PATH}
