"""Directories of the machine that labs mount over. Those that were not there are removed with the last lab.

A mount needs a directory to stand on, and this one is the machine's own. Removing it would also take away what other
labs have mounted on it (the kernel detaches such mounts in all mount namespaces), hence only the last lab does.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from netagent.lab.record import LABS, locked, names

_MADE = ".made.json"


def provide(directories: Iterable[str]) -> None:
    """Make those directories where they are missing, after writing down which ones."""
    with locked():
        made = _read()
        missing = [
            str(parent) for wanted in directories for parent in _missing(Path(wanted)) if str(parent) not in made
        ]
        (LABS / _MADE).write_bytes(msgspec.json.encode(made + missing))
        for directory in missing:
            Path(directory).mkdir(mode=0o755, exist_ok=True)


def withdraw() -> None:
    """Remove them again if no lab is left; one that holds something by now stays."""
    with locked():
        if names():
            return
        for directory in reversed(_read()):
            with suppress(OSError):  # not empty, or gone
                Path(directory).rmdir()
        (LABS / _MADE).unlink(missing_ok=True)


def _missing(directory: Path) -> list[Path]:
    """Return the directory and its parents that are not there, outermost first."""
    return [path for path in (*reversed(directory.parents), directory) if not path.exists()]


def _read() -> list[str]:
    try:
        return msgspec.json.decode((LABS / _MADE).read_bytes(), type=list[str])
    except FileNotFoundError:
        return []
