"""The agent is killed at every crash point of a container's life; another one must be able to clear what is left."""

import asyncio
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import netagent
from netagent.model.ids import ContainerId
from netagent.runtime import runc
from netagent.runtime.runc import RunStatus, Runtime
from tests.support.eventually import eventually

pytestmark = pytest.mark.kernel

LIFE = """
import asyncio, sys
from pathlib import Path
from netagent.runtime.programs import Programs, find_programs
from netagent.runtime.runc import Runtime
from netagent.runtime.spec import ContainerSpec
async def main():
    programs = Programs(runtime=find_programs().runtime, monitor=sys.argv[3]) if sys.argv[3:] else None
    runtime = Runtime(Path(sys.argv[1]), programs=programs)
    spec = ContainerSpec(id=sys.argv[2], name="box", command=("sleep", "1000"), hostname="box")
    for _ in range(2):
        await runtime.create(spec)
        await runtime.start(spec.id)
        await runtime.stop(spec.id, timeout_s=0)
    await runtime.delete(spec.id)
    await runtime.remove_files(spec.id)
asyncio.run(main())
"""


def live(run_dir: Path, container_id: ContainerId, failpoints: Path, steps: int) -> tuple[int, list[str]]:
    """Live a whole life, killed at crash point number ``steps``; return the exit status and the points passed."""
    failpoints.mkdir()
    (failpoints / "armed").write_text(str(steps))
    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(run_dir), container_id],
        cwd=Path(netagent.__file__).parents[1],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NETAGENT_FAILPOINTS": str(failpoints)},
        check=False,
    )
    return done.returncode, (failpoints / "trace").read_text().split()


async def clear(runtime: Runtime, container_id: ContainerId) -> None:
    await runtime.delete(container_id, force=True)
    await runtime.remove_files(container_id)


def traces(run_dir: Path, container_id: ContainerId) -> list[str]:
    """Return everything in the system that still has to do with the container."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if container_id in line]
    root, name = Path("/sys/fs/cgroup"), f"netagent-{container_id}"
    cgroups = [str(path) for path in (root / name, *(below / name for below in root.iterdir())) if path.exists()]
    files = [str(path) for path in run_dir.glob("*/*")]
    return mounts + cgroups + files + processes_of(container_id)


def processes_of(container_id: ContainerId) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if container_id.encode() in words:
            found.append(f"{path}: {words!r}")
    return found


async def test_an_agent_killed_anywhere_leaves_what_another_can_clear(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    steps, trace = 0, list[str]()
    while True:
        steps += 1
        runtime, container_id = Runtime(run_dir), ContainerId(secrets.token_hex(32))
        try:
            status, trace = await asyncio.to_thread(live, run_dir, container_id, tmp_path / f"points-{steps}", steps)
            if status == 0:
                break
            assert status == -signal.SIGKILL
            assert len(trace) == steps
            assert (await runtime.state(container_id)).status in RunStatus
        finally:
            await clear(runtime, container_id)
        assert traces(run_dir, container_id) == [], f"killed at {trace[-1]}, number {steps}"
    assert set(trace) >= {
        f"runtime.{verb}.{moment}"
        for verb in ("directory", "mount", "create", "start", "kill", "delete", "remove")
        for moment in ("before", "after")
    }


async def test_an_agent_killed_while_conmon_creates_leaves_what_another_can_clear(tmp_path: Path) -> None:
    """Kill at growing delays after the start of conmon, so that it is met launching, creating and done."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for delay_ms in range(0, 40, 3):
        runtime, container_id = Runtime(run_dir), ContainerId(secrets.token_hex(32))
        starter = subprocess.Popen(
            [sys.executable, "-c", LIFE, str(run_dir), container_id],
            cwd=Path(netagent.__file__).parents[1],
        )
        try:
            while not runtime.layout(container_id).config.exists():
                await asyncio.sleep(0.001)
            await asyncio.sleep(delay_ms / 1000)
        finally:
            starter.kill()
            starter.wait()
            await clear(runtime, container_id)
        assert traces(run_dir, container_id) == [], f"killed after {delay_ms} ms"


async def killed_with_monitor(script: str, tmp_path: Path) -> tuple[Runtime, ContainerId]:
    """Kill an agent that has started ``script`` as its monitor."""
    run_dir, monitor = tmp_path / "run", tmp_path / "monitor"
    run_dir.mkdir()
    monitor.write_text(f"#!/bin/bash\n{script}\n")
    monitor.chmod(0o755)
    container_id = ContainerId(secrets.token_hex(32))
    starter = subprocess.Popen(
        [sys.executable, "-c", LIFE, str(run_dir), container_id, str(monitor)],
        cwd=Path(netagent.__file__).parents[1],
    )
    try:
        await eventually(lambda: asyncio.to_thread(has_started, monitor, container_id))
    finally:
        starter.kill()
        starter.wait()
    return Runtime(run_dir), container_id


def has_started(monitor: Path, container_id: ContainerId) -> bool:
    return any(f"{monitor}\\x00--api-version" in process for process in processes_of(container_id))


async def test_what_has_not_become_conmon_yet_is_waited_for(tmp_path: Path) -> None:
    runtime, container_id = await killed_with_monitor('sleep 0.5; exec conmon "$@"', tmp_path)
    await clear(runtime, container_id)
    assert traces(tmp_path / "run", container_id) == []


async def test_a_monitor_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runc, "MONITOR_GRACE_S", 0.1)
    hang = f'{sys.executable} -c "import time; time.sleep(600)"'
    runtime, container_id = await killed_with_monitor(f'sleep 0.5; exec -a conmon {hang} "$@"', tmp_path)
    await clear(runtime, container_id)
    assert traces(tmp_path / "run", container_id) == []
