"""The OCI runtime's complaints -> errors with Docker's exit statuses. Pure."""

import json
import re

from netagent.errors import EnvironmentProblem, InvalidRequest, NetagentError
from netagent.model.ids import ContainerId, short

NOT_FOUND, NOT_EXECUTABLE, OURS = 127, 126, 125

_COMMAND = re.compile(r'exec: "(?P<command>(?:[^"\\]|\\.)*)": (?P<reason>.*)', re.DOTALL)
"""How runc quotes Go's exec.LookPath and execve errors; crun writes other words for the same."""
_CRUN_COMMAND = re.compile(r"executable file `(?P<command>.*)` (?P<reason>not found.*)")


def refusal(container_id: ContainerId, verb: str, complaint: str) -> NetagentError:
    """Return the error for an OCI runtime that refused ``verb``, with the exit status of ``run`` in its facts.

    126 and 127 only if the command itself is at fault, as in Docker's CLI (docker/cli ``toStatusError``).
    """
    text = last_line(complaint) or "no reason given"
    if status := command_status(text):
        match = _COMMAND.search(text) or _CRUN_COMMAND.search(text)
        assert match is not None
        return InvalidRequest(
            f"cannot run {match['command']!r}: {match['reason']}",
            hint="see that the command exists in the container's root and is executable",
            exit_status=status,
        )
    message = f"the OCI runtime refused to {verb} container {short(container_id)}: {text}"
    if "mounting" in text and "not a directory" in text:
        hint = "a directory cannot be mounted onto a file, nor a file onto a directory: check both paths of -v"
        return InvalidRequest(message, hint=hint, exit_status=OURS)
    return EnvironmentProblem(message, exit_status=OURS)


def command_status(text: str) -> int:
    """Return 127 or 126 if ``text`` says that a command is missing or cannot be executed, else 0."""
    match = _COMMAND.search(text) or _CRUN_COMMAND.search(text)
    if match is None:
        return 0
    missing = ("not found", "no such file or directory", "not a directory")
    return NOT_FOUND if any(words in match["reason"] for words in missing) else NOT_EXECUTABLE


def last_line(complaint: str) -> str:
    """Return the last line of a complaint as plain text, be it plain or a line of a JSON log."""
    lines = [line for line in complaint.splitlines() if line.strip()]
    if not lines:
        return ""
    try:
        return str(json.loads(lines[-1])["msg"])
    except (ValueError, KeyError, TypeError):
        return lines[-1].strip()
