"""A lab leaves nothing behind, however its `up` and its hosts came to an end."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netagent
from netagent.errors import AlreadyExists, Conflict, NotFound
from netagent.lab import cgroup, process, record
from netagent.lab.command import search_path
from netagent.lab.lab import Lab
from netagent.lab.process import ProcessId
from tests.support.lab import eventually, unique_name

pytestmark = pytest.mark.cluster

SOURCE = Path(netagent.__file__).parents[1]


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name; the lab, if the test leaves one, is taken down."""
    name = unique_name()
    yield name
    if name in record.names():
        Lab.open(name).down()


def cli(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from netagent.lab.cli import lab; lab()", *arguments]


def start_up(name: str, **environment: str) -> subprocess.Popen[str]:
    argv = cli("up", "--lab", name, "--hosts", "2", "--no-agent")
    env = os.environ | environment
    return subprocess.Popen(argv, cwd=SOURCE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)


@pytest.fixture
def silent_etcd(tmp_path: Path) -> str:
    """A PATH with an etcd that says nothing, so that an ``up`` waits for it until it is interrupted."""
    script = tmp_path / "etcd"
    script.write_text(f'#!/bin/sh\n{shutil.which("etcd", path=search_path())} "$@" >/dev/null 2>&1\n')
    script.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


def traces(name: str, processes: list[ProcessId]) -> list[str]:
    """Return what is there of a lab: everything that it makes outside of its own namespaces."""
    found = [str(entry) for entry in Path("/run/netns").glob(f"nalab-{name}-*")]
    found += [str(entry) for entry in Path("/run/netagent-lab").glob(f"*{name}*")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"nalab-{name}-" in line]
    found += [str(noted) for noted in processes if process.alive(noted)]
    return found


def everyone_in(lab: Lab) -> list[ProcessId]:
    """Return the processes of the lab and all that descend from them."""
    noted = {known.pid for known in record.read(lab.name).processes.values()}
    return process.family(lambda pid: pid in noted)


def test_down_leaves_nothing_behind(name: str) -> None:
    lab = Lab.up(name, 2, 3, agents=False)
    processes = everyone_in(lab)
    assert len(processes) == 2 + 3 * 2
    assert len(traces(name, processes)) > len(processes)
    lab.down()
    assert traces(name, processes) == []


def test_down_is_no_error_when_all_is_gone(name: str) -> None:
    lab = Lab.up(name, 1, 1, agents=False)
    lab.down()
    lab.down()
    with pytest.raises(NotFound, match=name):
        Lab.open(name)
    again = subprocess.run(cli("down", "--lab", name), cwd=SOURCE, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, f"no lab named {name!r}, nothing to do\n")


def test_down_finds_what_others_started_on_a_host(name: str) -> None:
    """As containers do: out of the session, with other files, another network and a cgroup of its own."""
    lab = Lab.up(name, 1, 1, agents=False)
    group = next(found for found in (cgroup.MOUNT / "freezer", cgroup.MOUNT) if found.is_dir()) / f"netagent-{name}"
    contain = f"mkdir {group}; echo $$ > {group}/cgroup.procs; exec unshare --mount --net --uts sleep 1000 >&- 2>&-"
    lab.host("h1").run("setsid", "--fork", "sh", "-c", contain)
    contained = eventually(lambda: process.family(lambda pid: group in cgroup.of_process(pid)))
    eventually(lambda: Path(f"/proc/{contained[0].pid}/comm").read_text() == "sleep\n")
    lab.down()
    assert traces(name, contained) == []
    assert not group.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("moment", ["on a switch", "etcd starts"], ids=["hosts-made", "etcd-begun"])
def test_interrupted_up_takes_down_what_it_made(
    name: str, moment: str, number: signal.Signals, silent_etcd: str
) -> None:
    with start_up(name, PATH=silent_etcd) as up:
        assert up.stderr is not None
        assert any(moment in line for line in up.stderr)
        processes = everyone_in(Lab.open(name))
        up.send_signal(number)
        assert up.wait(timeout=60) != 0
    assert processes
    assert traces(name, processes) == []


def test_down_finds_what_a_killed_up_made(name: str) -> None:
    with start_up(name) as up:
        assert up.stderr is not None
        assert any("on a switch" in line for line in up.stderr)
        up.kill()
        up.wait(timeout=30)
    lab = Lab.open(name)
    processes = everyone_in(lab)
    assert processes
    lab.down()
    assert traces(name, processes) == []


def test_second_up_of_a_name_is_refused_and_changes_nothing(name: str) -> None:
    lab = Lab.up(name, 1, 1, agents=False)
    before = record.read(name)
    with pytest.raises(AlreadyExists, match=f"netagent lab down --lab {name}"):
        Lab.up(name, 1, 1, agents=False)
    assert record.read(name) == before
    assert lab.etcd[0].running


def test_namespace_of_somebody_else_is_neither_used_nor_removed(name: str) -> None:
    netns = f"nalab-{name}-h1"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        with pytest.raises(Conflict, match=netns):
            Lab.up(name, 1, 1, agents=False)
        assert Path("/run/netns", netns).exists()
        assert name not in record.names()
    finally:
        subprocess.run(["ip", "netns", "delete", netns], check=True)


def test_labs_are_listed_as_json(name: str) -> None:
    up = subprocess.run(
        cli("up", "--lab", name, "--hosts", "1", "--no-agent", "--format", "json"),
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    listed = subprocess.run(cli("ls", "--format", "json"), cwd=SOURCE, capture_output=True, text=True, check=True)
    mine = next(entry for line in listed.stdout.splitlines() if (entry := json.loads(line))["lab"] == name)
    assert mine == json.loads(up.stdout)
    assert [(host["name"], host["address"], host["agent"]) for host in mine["hosts"]] == [
        ("h1", "198.18.0.1", "stopped")
    ]
