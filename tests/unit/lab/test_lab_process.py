"""Processes of a lab: none runs before it is written down, none is ended that only has the pid of one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netagent
from netagent.lab import process
from netagent.lab.process import ProcessId

SOURCE = Path(netagent.__file__).parents[1]
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def started() -> Iterator[list[ProcessId]]:
    """What a test starts, ended after it."""
    processes: list[ProcessId] = []
    yield processes
    process.end(processes, within_s=0)


def spawn(started: list[ProcessId], log: Path, *argv: str) -> ProcessId:
    return process.spawn(argv, env=ENV, log=log, record=started.append)


def test_process_starts_after_it_is_recorded(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    def record(begun: ProcessId) -> None:
        assert process.alive(begun)
        assert not ran.exists()

    begun = process.spawn(["touch", str(ran)], env=ENV, log=tmp_path / "log", record=record)
    assert process.wait(begun, within_s=60)
    assert ran.exists()


def test_process_never_starts_if_recording_fails(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    begun: list[ProcessId] = []

    def record(new: ProcessId) -> None:
        begun.append(new)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        process.spawn(["touch", str(ran)], env=ENV, log=tmp_path / "log", record=record)
    assert process.wait(begun[0], within_s=60)
    assert not ran.exists()


def test_process_never_starts_if_its_starter_is_killed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    script = (
        "import os, pathlib, signal, sys; from netagent.lab import process\n"
        "die = lambda new: (print(new.pid, new.started, flush=True), os.kill(os.getpid(), signal.SIGKILL))\n"
        "process.spawn(['touch', sys.argv[1]], env=dict(os.environ), log=pathlib.Path(sys.argv[2]), record=die)"
    )
    argv = [sys.executable, "-c", script, str(ran), str(tmp_path / "log")]
    died = subprocess.run(argv, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=120)
    assert died.returncode == -signal.SIGKILL
    pid, begun = map(int, died.stdout.split())
    assert process.wait(ProcessId(pid=pid, started=begun), within_s=60)
    assert not ran.exists()


def test_output_is_appended_to_the_log(tmp_path: Path, started: list[ProcessId]) -> None:
    log = tmp_path / "log"
    for word in ("one", "two"):
        process.wait(spawn(started, log, "sh", "-c", f"echo {word} >&2"), within_s=60)
    assert log.read_text() == "one\ntwo\n"


def test_recycled_pid_is_not_signalled(tmp_path: Path, started: list[ProcessId]) -> None:
    stranger = spawn(started, tmp_path / "log", "sleep", "60")
    ours = ProcessId(pid=stranger.pid, started=stranger.started - 1)
    assert not process.alive(ours)
    process.send(ours, signal.SIGKILL)
    process.end([ours], within_s=1)
    assert process.alive(stranger)


def test_end_kills_what_ignores_sigterm(tmp_path: Path, started: list[ProcessId]) -> None:
    log = tmp_path / "log"
    stubborn = spawn(started, log, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done")
    while "ready" not in (log.read_text() if log.exists() else ""):
        assert process.alive(stubborn)
    # It forks only after it has spoken.
    while not (children := [found for found in process.family(lambda pid: pid == stubborn.pid) if found != stubborn]):
        assert process.alive(stubborn)
    started.extend(children)
    process.end([stubborn], within_s=0.1)
    assert not process.alive(stubborn)


def test_end_reaches_a_paused_process_with_sigterm(tmp_path: Path, started: list[ProcessId]) -> None:
    paused = spawn(started, tmp_path / "log", "sleep", "60")
    process.send(paused, signal.SIGSTOP)
    process.end([paused], within_s=60)
    assert not process.alive(paused)


def test_family_holds_descendants_and_not_ourselves(tmp_path: Path, started: list[ProcessId]) -> None:
    log = tmp_path / "log"
    parent = spawn(started, log, "sh", "-c", "sleep 60 & echo $!; wait")
    while not (text := log.read_text() if log.exists() else ""):
        assert process.alive(parent)
    found = process.family(lambda pid: pid in (parent.pid, os.getpid()))
    started.extend(found)
    assert {parent.pid, int(text)} <= {member.pid for member in found}
    assert os.getpid() not in {member.pid for member in found}
