"""The agent is killed at every crash point of a container's life; another one must be able to clear what is left."""

import asyncio
import secrets
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import netagent
from netagent.model.ids import ContainerId
from netagent.runtime.runc import RunStatus, Runtime
from tests.support.eventually import eventually

pytestmark = pytest.mark.kernel

LIFE = """
import asyncio, sys
from pathlib import Path
from netagent.runtime.runc import Runtime
from netagent.runtime.spec import ContainerSpec
async def main():
    runtime = Runtime(Path(sys.argv[1]))
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


async def nothing_forked(container_id: ContainerId) -> bool:
    """Tell whether all that the starter forked has become what it was to be: no agent starts faster than that."""
    return not any(sys.executable in process for process in processes_of(container_id))


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
            await eventually(partial(nothing_forked, container_id))
            await clear(runtime, container_id)
        assert traces(run_dir, container_id) == [], f"killed after {delay_ms} ms"
