"""``scripts/test`` runs all three stages, and the files of a few failed tests again, alone."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "test"

# Stands for the interpreter that runs pytest: what it says and how it ends is in a file for each run.
PYTEST = """#!/bin/bash
while [ $# -gt 0 ]; do
    case $1 in
        -n) workers=$2 ;;
        -m) mark=$2 ;;
        tests/*) files="$files $1" ;;
    esac
    shift
done
case $mark in
    "not kernel and not cluster") stage=unit ;;
    "kernel and not cluster") stage=kernel ;;
    cluster) stage=cluster ;;
esac
[ -n "$workers" ] || stage=$stage-again
echo "$stage:$files" >> calls
cat "$stage" 2>/dev/null || echo "9 passed"
exit "$(cat "$stage.status" 2>/dev/null || echo 0)"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(PYTEST)
    program.chmod(0o755)
    return tmp_path


def fail(checkout: Path, stage: str, *tests: str, status: int = 1) -> None:
    (checkout / stage).write_text("".join(f"FAILED {test} - AssertionError: no\n" for test in tests) + "1 failed\n")
    (checkout / f"{stage}.status").write_text(str(status))


def run(checkout: Path) -> tuple[int, str, list[str]]:
    """Return the exit status, what was printed, and the second tries."""
    done = subprocess.run(
        [SCRIPT], cwd=checkout, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False
    )
    calls = (checkout / "calls").read_text().splitlines()
    assert [call.partition(":")[0] for call in calls if "-again" not in call] == ["unit", "kernel", "cluster"]
    return done.returncode, done.stdout, [call for call in calls if "-again" in call]


def test_what_passes_is_not_run_again(checkout: Path) -> None:
    status, printed, again = run(checkout)
    assert (status, again) == (0, [])
    assert printed.count("9 passed") == 6


def test_what_passes_alone_is_named_and_fails_nothing(checkout: Path) -> None:
    fail(checkout, "kernel", "tests/kernel/test_a.py::test_one[a b]", "tests/kernel/test_a.py::test_two")
    status, printed, again = run(checkout)
    assert (status, again) == (0, ["kernel-again: tests/kernel/test_a.py"])
    summary = printed.partition("== summary")[2]
    assert "failed among the others: tests/kernel/test_a.py::test_one" in summary
    assert "failed among the others: tests/kernel/test_a.py::test_two" in summary


def test_what_fails_alone_too_fails_the_whole(checkout: Path) -> None:
    fail(checkout, "cluster", "tests/cluster/test_a.py::test_one")
    fail(checkout, "cluster-again", "tests/cluster/test_a.py::test_one")
    assert run(checkout)[0] == 1


def test_more_than_three_files_are_no_bad_luck(checkout: Path) -> None:
    fail(checkout, "unit", *(f"tests/unit/test_{letter}.py::test_one" for letter in "abcd"))
    status, _, again = run(checkout)
    assert (status, again) == (1, [])


def test_a_run_that_was_broken_off_is_not_repeated(checkout: Path) -> None:
    fail(checkout, "unit", "tests/unit/test_a.py::test_one", status=2)
    status, _, again = run(checkout)
    assert (status, again) == (1, [])
