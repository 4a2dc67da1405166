"""The power is cut while containers come and go: what was answered is in the journal.

A machine of its own (``tests/support/vm_power.py``) with a disk: what its kernel had not written yet is lost with it.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.vm import run_in_vm, run_in_vm_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
LAST_WORDS = "said added c4 "
"""One container was deleted by then, and others were added right before."""


def _command(what: str) -> list[str]:
    return [sys.executable, "-m", "tests.support.vm_power", what]


def _said(lines: list[str]) -> list[list[str]]:
    """Return what the machine said; its firmware or kernel may have begun the line on the shared console."""
    return [words.split() for _, said, words in (line.partition("said ") for line in lines) if said]


def test_the_journal_holds_what_was_answered_before_the_power_was_cut(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as image:
        image.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-qF", disk], check=True)
    lines = run_in_vm_until(lambda line: LAST_WORDS in line, _command("work"), directory=ROOT, disk=disk, timeout=400)
    present: dict[str, str] = {}
    deleted = set()
    for verb, *words in _said(lines):
        if verb == "added":
            present[words[0]] = words[1]
        elif verb == "deleting":
            present.pop(words[0])
        elif verb == "deleted":
            deleted.add(words[0])
    assert len(present) == 4
    assert len(deleted) == 1
    status, output = run_in_vm(_command("look"), directory=ROOT, disk=disk, timeout=400)
    assert status == 0, output[-4000:]
    journal = {name: address for _, name, address in _said(output.splitlines())}
    assert journal.items() >= present.items()
    assert not journal.keys() & deleted
    assert len(set(journal.values())) == len(journal)
