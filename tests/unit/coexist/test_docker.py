"""What a lock that another program holds keeps from being read is not taken for absent."""

from pathlib import Path

import pytest

from netagent.coexist.docker import legacy_chains
from netagent.errors import EnvironmentProblem

LOCKED = 'echo "Another app is currently holding the xtables lock. Stopped waiting after $2s." >&2; exit 4'
MISSING = 'echo "modprobe: FATAL: Module ip_tables not found" >&2; exit 3'


def programs(directory: Path, script: str) -> None:
    for name in ("iptables-legacy", "ip6tables-legacy"):
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)


def test_a_held_lock_is_told_and_missing_tables_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    programs(tmp_path, LOCKED)
    with pytest.raises(EnvironmentProblem, match="Stopped waiting after 5s"):
        legacy_chains()
    programs(tmp_path, MISSING)
    assert legacy_chains() == frozenset()
