"""The programs that run containers, and what of our environment they get."""

import os
import shutil
from dataclasses import dataclass

from netagent.errors import EnvironmentProblem

SEARCH_PATH = ":".join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
"""Debian keeps runc in /usr/sbin, which is not on everybody's PATH."""


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


def environment() -> dict[str, str]:
    """Return what the programs inherit: no TMPDIR (conmon binds a socket there), no LISTEN_FDS, no secrets."""
    return {"PATH": SEARCH_PATH}
