"""ufw is asked nothing while somebody works with it, for it would undo what they do, or they what we do."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netagent.coexist.ufw import REST_S, Ufw
from netagent.firewall.marks import UFW_CHAINS, Needs, Presence, ufw_rules

PRESENCE = Presence(chains=frozenset({("ip", UFW_CHAINS[0])}))
HOLD_S = 0.4
LOCKED = """
import fcntl, sys, time
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
    print(time.time(), flush=True)
"""
UFW = """#!/bin/sh
echo "$(date +%s.%N) $*" >>{log}
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a program called ufw, which does nothing and has no rules, was asked, each line with the time."""
    program, log = tmp_path / "ufw", tmp_path / "log"
    program.write_text(UFW.format(log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return log


class Clock:
    """A clock that only moves when somebody sleeps, which it notes among what ufw was asked."""

    def __init__(self, log: Path) -> None:
        self.now = time.time()
        self._log = log

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        with self._log.open("a") as log:
            log.write(f"{self.now} slept\n")


def _asked(log: Path) -> list[tuple[float, str]]:
    lines = (line.split(" ", 1) for line in log.read_text().splitlines())
    return [(float(at), words) for at, words in lines]


def test_ufw_is_asked_nothing_while_another_holds_its_lock(tmp_path: Path, log: Path) -> None:
    lock, rules = tmp_path / "ufw.lock", tmp_path / "user.rules"
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED, lock, str(HOLD_S)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        Ufw((str(rules),), lock).reconcile(Needs(), PRESENCE)
        released = float(other.stdout.readline())
    asked = _asked(log)
    assert asked[0][0] >= released
    assert [words for _, words in asked] == [
        "show added",
        *(f"{rule[4:]} comment netagent" for rule in ufw_rules(Needs())),
    ]


def test_rules_that_were_written_just_now_are_left_to_rest_and_read_again(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(log)
    monkeypatch.setattr("netagent.coexist.ufw.time", clock)
    rules = tmp_path / "user.rules"
    rules.touch()
    written = clock.now - (REST_S - 0.3)
    os.utime(rules, (written, written))
    Ufw((str(rules),), tmp_path / "ufw.lock").reconcile(Needs(), PRESENCE)
    asked = _asked(log)
    slept = [at for at, words in asked if words == "slept"]
    assert slept[-2] < written + REST_S <= slept[-1]
    assert [words for _, words in asked] == [
        "show added",
        *["slept"] * len(slept),
        "show added",
        *(f"{rule[4:]} comment netagent" for rule in ufw_rules(Needs())),
    ]


def test_a_rule_that_got_lost_is_loaded_once_when_it_is_added_again(tmp_path: Path, log: Path) -> None:
    """A reload may have loaded it and written it out of the files; only a deletion lets ufw load them anew."""
    firewall = Ufw((str(tmp_path / "user.rules"),), tmp_path / "ufw.lock")
    firewall.reconcile(Needs(), PRESENCE)
    log.unlink()
    firewall.reconcile(Needs(), PRESENCE)
    changes = [words for _, words in _asked(log) if "out on na+" in words]
    added = "route allow out on na+ comment netagent"
    assert changes == [added, "route delete allow out on na+", added]
