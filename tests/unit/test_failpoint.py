"""Crash points: nothing without the variable; with it, a trace, and death at the chosen one."""

import ast
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import netagent
from netagent import failpoint

PROGRAM = "from netagent import failpoint\nfor name in ('one', 'two', 'three'): failpoint.reach(name)\nprint('alive')"


def test_in_production_a_crash_point_is_nothing() -> None:
    assert "NETAGENT_FAILPOINTS" not in os.environ
    assert failpoint._directory is None
    failpoint.reach("anything")


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NETAGENT_FAILPOINTS": str(directory), "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )


def test_an_armed_process_dies_at_the_chosen_point(tmp_path: Path) -> None:
    (tmp_path / "armed").write_text("2")
    result = run(tmp_path)
    assert (result.returncode, result.stdout) == (-signal.SIGKILL, "")
    assert (tmp_path / "trace").read_text() == "one\ntwo\n"


def test_points_are_noted_while_armed_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoint, "_directory", tmp_path)
    failpoint.reach("before")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "armed").write_text("1000")
    failpoint.reach("one")
    failpoint.reach("two")
    assert (tmp_path / "trace").read_text() == "one\ntwo\n"
    assert (tmp_path / "armed").read_text() == "998"
    (tmp_path / "armed").unlink()
    failpoint.reach("after")
    assert (tmp_path / "trace").read_text() == "one\ntwo\n"


def test_one_that_is_disarmed_meanwhile_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "armed").write_text("1000")

    def disarm(text: str) -> int:
        (tmp_path / "armed").unlink()
        return int(text)

    monkeypatch.setattr(failpoint, "_directory", tmp_path)
    monkeypatch.setattr(failpoint, "int", disarm, raising=False)
    failpoint.reach("one")
    assert not (tmp_path / "armed").exists()


def test_everything_that_changes_the_journal_is_a_crash_point() -> None:
    """A write outside ``_transaction`` would be a step that no kill is tried at."""
    tree = ast.parse((Path(netagent.__file__).parent / "store" / "journal.py").read_text())
    (journal,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for method in (node for node in journal.body if isinstance(node, ast.FunctionDef)):
        text = ast.unparse(method)
        if re.search(r"INSERT|DELETE|UPDATE", text):
            assert "self._transaction(" in text or method.name.startswith("_put_"), method.name
