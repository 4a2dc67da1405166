"""What a lab's machine is given before anything runs on it."""

import json
import subprocess
from pathlib import Path

from netagent.lab.machine import cni_plugin


def test_the_plugin_is_that_of_the_sources_else_the_installed_one(tmp_path: Path) -> None:
    built, installed = tmp_path / "built", tmp_path / "installed"
    installed.write_bytes(b"installed")
    assert cni_plugin(built, installed) == b"installed"
    built.write_bytes(b"built")
    assert cni_plugin(built, installed) == b"built"


def test_a_plugin_that_is_not_built_says_how_it_is(tmp_path: Path) -> None:
    program = tmp_path / "netagent"
    program.write_bytes(cni_plugin(tmp_path / "nosuch"))
    done = subprocess.run(["sh", program], env={}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    error = json.loads(done.stdout)
    assert error["code"] == 11
    assert "make cni/netagent" in error["details"]
