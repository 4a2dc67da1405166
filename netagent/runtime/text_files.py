"""Texts of a container that netagent owns, such as ``/etc/hosts``: written at its start, changed while it runs.

Beside each text lies what was written last, so that what somebody inside of the container has added is kept.
"""

from pathlib import Path

_WRITTEN = ".written"


def write_text(path: Path, text: str) -> None:
    """Write a container's text for its start."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    _note_of(path).write_text(text)


def update_text(path: Path, text: str) -> None:
    """Change a text that a container may be reading; FileNotFoundError if it has none.

    Written in place: the container's mount holds on to the file itself, not to its name.
    """
    note = _note_of(path)
    written = note.read_text()
    if written == text:
        return
    path.write_text(merge_lines(path.read_text(), written, text))
    note.write_text(text)


def merge_lines(text: str, written: str, wanted: str) -> str:
    """Return ``text``, in which the lines of ``written`` were ours, with ``wanted`` for them; others' lines stay."""
    if text == written:
        return wanted
    ours, missing = set(written.splitlines()), wanted.splitlines()
    kept = [line for line in text.splitlines() if line not in ours or line in missing]
    return "".join(f"{line}\n" for line in (*kept, *(line for line in missing if line not in kept)))


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + _WRITTEN)
