"""Running other people's programs: bounded in time, in their plainest language, with errors that name them."""

import os
import subprocess
from collections.abc import Sequence

from netagent import failpoint
from netagent.errors import EnvironmentProblem

_TIMEOUT_S = 30.0
"""A reload of firewalld takes half a second here; on a busy machine with thousands of rules some seconds."""


def run(argv: Sequence[str], *, stdin: str = "") -> str:
    """Run a program to its end and return its standard output; EnvironmentProblem if it is missing or fails."""
    environment = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LC_ALL": "C"}
    bus = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS")
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            text=True,
            capture_output=True,
            timeout=_TIMEOUT_S,
            env=environment | ({"DBUS_SYSTEM_BUS_ADDRESS": bus} if bus else {}),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentProblem(f"cannot run {argv[0]}: {error}", hint="coexist = false leaves it alone") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip().replace("\n", " / ")
        raise EnvironmentProblem(f"{' '.join(argv)} failed: {words}", hint="try it by hand")
    return done.stdout


def change(argv: Sequence[str], *, stdin: str = "") -> None:
    """Run a program that changes something, as ``run`` does."""
    failpoint.reach("coexist.change.before")
    run(argv, stdin=stdin)
    failpoint.reach("coexist.change.after")
