"""Crash points: places where a test may kill the agent, to prove that a restart mends what was half done.

Every effect that outlives the process (an operation on the kernel, a commit of the journal, a transaction of the
store, a call of the OCI runtime) calls ``reach`` right before and right after it happens. With NETAGENT_FAILPOINTS
unset, as always in production, that is one comparison. Set to a directory, every reach appends its name to
``<dir>/trace`` while ``<dir>/armed`` exists; that file holds the number N, and the N-th reach after arming ends the
process with SIGKILL.
"""

import os
import signal
import threading
from pathlib import Path

_directory = Path(os.environ["NETAGENT_FAILPOINTS"]) if "NETAGENT_FAILPOINTS" in os.environ else None
_counting = threading.Lock()


def reach(name: str) -> None:
    """Note that the crash point ``name`` was reached; die here if a test asked for it."""
    if _directory is None:
        return
    with _counting:
        try:
            # Not created: one that a test takes away meanwhile must not be there again.
            armed = os.open(_directory / "armed", os.O_RDWR)
        except FileNotFoundError:
            return
        with os.fdopen(armed, "r+") as file:
            remaining = int(file.read()) - 1
            with (_directory / "trace").open("a") as trace:
                trace.write(name + "\n")
            file.seek(0)
            file.write(str(remaining))
            file.truncate()
        if remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)
