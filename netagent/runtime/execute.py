"""``netagent exec``: a further command in a running container, with the command line's own standard streams.

The OCI runtime enters the container and handles the terminal; the agent only says which container it is.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from netagent.runtime.layout import RUNTIME_ROOT
from netagent.runtime.refusal import command_status, last_line

RUNTIME_FAILED = 255
"""How runc ends when it could not run the command (its own log says why); a command may end so too."""


def exec_arguments(
    runtime: str,
    run_dir: Path,
    container_id: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Sequence[tuple[str, str]] = (),
    working_directory: str | None = None,
    terminal: bool = False,
) -> list[str]:
    """Return the arguments for ``execute`` that run ``command`` in a container; ``log`` takes the runtime's words."""
    arguments = [runtime, f"--root={run_dir / RUNTIME_ROOT}", f"--log={log}", "--log-format=json", "exec"]
    if terminal:
        arguments.append("--tty")
    for name, value in environment:
        arguments += ["--env", f"{name}={value}"]
    if working_directory is not None:
        arguments += ["--cwd", working_directory]
    return [*arguments, container_id, *command]


def execute(arguments: Sequence[str], *, log: Path, interactive: bool) -> int:
    """Run ``arguments`` and return the command's exit status: 126 or 127 for one that cannot run, as in Docker.

    Signals from the terminal reach the runtime by themselves; the others are passed on to it.
    """
    process = subprocess.Popen(arguments, stdin=None if interactive else subprocess.DEVNULL)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, lambda number, _: process.send_signal(number))
    try:
        status = process.wait()
        reason = _reason(log) if status == RUNTIME_FAILED else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        with suppress(FileNotFoundError):
            os.unlink(log)  # noqa: PTH108
    return command_status(reason) or (status if status >= 0 else 128 - status)


def _reason(log: Path) -> str:
    try:
        return last_line(log.read_text(errors="replace"))
    except FileNotFoundError:
        return ""
