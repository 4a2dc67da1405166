"""Foreign IPAM plugins, run as a CNI plugin runs them: the same variables and configuration, another program.

The agent runs them rather than its plugin, because some of their calls come when no runtime waits: for a DEL that was
queued, and for what is collected. They get nothing of the agent's environment but a search path.
"""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from netagent.errors import InvalidRequest, Unavailable
from netagent.model.container import Delegation
from netagent.runtime.programs import environment

TIMEOUT_S = 60.0
"""How long one call may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateOutcome:
    """How a call ended: exit status, standard output, standard error."""

    status: int
    output: bytes
    complaint: bytes


def find_delegate(delegation: Delegation) -> Path:
    """Return the program of a delegation; InvalidRequest if the directories have none."""
    for directory in delegation.path.split(":"):
        program = Path(directory) / delegation.plugin
        if program.is_absolute() and program.is_file() and os.access(program, os.X_OK):
            return program
    raise InvalidRequest(f"no IPAM plugin {delegation.plugin} in CNI_PATH {delegation.path}", hint="install it there")


async def call_delegate(delegation: Delegation, command: str) -> DelegateOutcome:
    """Run a delegation's plugin for ``command`` and return how it ended; Unavailable if it does not end."""
    variables = {**environment(), **dict(delegation.variables), "CNI_COMMAND": command, "CNI_PATH": delegation.path}
    process = await asyncio.create_subprocess_exec(
        find_delegate(delegation),
        env=variables,
        cwd="/",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, complaint = await process.communicate(delegation.configuration.encode())
    except TimeoutError:
        raise Unavailable(f"the IPAM plugin {delegation.plugin} did not end within {TIMEOUT_S:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return DelegateOutcome(status=process.returncode or 0, output=output, complaint=complaint)
