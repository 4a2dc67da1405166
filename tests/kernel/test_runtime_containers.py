"""Containers by the real runc and conmon. Each test has a run directory of its own, and leaves nothing of it."""

import asyncio
import fcntl
import hashlib
import os
import pty
import secrets
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import netagent
from netagent.errors import Conflict, InvalidRequest, NotFound
from netagent.model.ids import ContainerId
from netagent.runtime import logs
from netagent.runtime.runc import RunState, RunStatus, Runtime
from netagent.runtime.spec import BindMount, ContainerSpec, TextFile

pytestmark = pytest.mark.kernel

SOURCE = Path(netagent.__file__).parents[1]

CLIENT = """
import asyncio, sys
from netagent.runtime.attach import Streams
from netagent.runtime.runc import Runtime
runtime, container, flags = Runtime(__import__("pathlib").Path(sys.argv[1])), sys.argv[2], sys.argv[3:]
proxy = lambda number: asyncio.run(runtime.kill(container, number))
with Streams.connect(runtime.layout(container).attach) as streams:
    if "t" in flags:
        streams.resize()
    asyncio.run(runtime.start(container))
    streams.run(terminal="t" in flags, interactive="i" in flags, proxy=proxy)
    sys.exit(streams.exit_code())
"""
"""What ``netagent run`` does in the foreground."""


def eventually(predicate: Callable[[], Any], *, within_s: float = 60.0) -> Any:
    deadline = time.monotonic() + within_s
    while not (value := predicate()):
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)
    return value


def cgroups_of(container_id: ContainerId) -> list[Path]:
    root, name = Path("/sys/fs/cgroup"), f"netagent-{container_id}"
    return [path for path in (root / name, *(below / name for below in root.iterdir())) if path.exists()]


@dataclass
class Box:
    """One run directory and what a test does with it."""

    run_dir: Path
    runtime: Runtime

    def spec(self, *command: str, **rest: Any) -> ContainerSpec:
        container_id = ContainerId(secrets.token_hex(32))
        return ContainerSpec(id=container_id, name="box", command=command, hostname="box", **rest)

    async def start(self, *command: str, **rest: Any) -> ContainerId:
        spec = self.spec(*command, **rest)
        await self.runtime.create(spec)
        await self.runtime.start(spec.id)
        return spec.id

    async def run(self, *command: str, **rest: Any) -> tuple[int | None, str]:
        """Run a command to its end; return exit status and output."""
        container_id = await self.start(*command, **rest)
        code = await self.runtime.wait(container_id)
        return code, self.output(container_id)

    def output(self, container_id: ContainerId) -> str:
        return b"".join(r.data for r in logs.read(self.runtime.layout(container_id).log)).decode()

    def client(self, container_id: ContainerId, *flags: str) -> list[str]:
        return [sys.executable, "-c", CLIENT, str(self.run_dir), container_id, *flags]

    async def foreground(self, *command: str, stdin: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
        """Run a command as ``netagent run`` does in the foreground, with ``-i`` if there is a ``stdin``."""
        spec = self.spec(*command, interactive=stdin is not None)
        await self.runtime.create(spec)
        flags = [] if stdin is None else ["i"]
        arguments = self.client(spec.id, *flags)
        return await asyncio.to_thread(
            subprocess.run, arguments, cwd=SOURCE, input=stdin, capture_output=True, timeout=60, check=False
        )

    def traces(self) -> list[str]:
        """Return what containers of this run directory left in the system, besides the two empty directories."""
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.run_dir) in line]
        files = [str(path) for path in self.run_dir.glob("*/*")]
        return mounts + files

    async def clear(self) -> None:
        for container_id in self.runtime.ids():
            await self.runtime.delete(container_id, force=True)
            await self.runtime.remove_files(container_id)
            assert cgroups_of(container_id) == []
        assert self.traces() == []


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    box = Box(run_dir=run_dir, runtime=Runtime(run_dir))
    try:
        yield box
    finally:
        await box.clear()


async def test_output_and_exit_status_reach_the_foreground(box: Box) -> None:
    done = await box.foreground("sh", "-c", "echo hi; echo oops >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"hi\n", b"oops\n")


async def test_a_container_killed_by_a_signal_ends_with_128_and_the_number(box: Box) -> None:
    done = await box.foreground("sh", "-c", "sh -c 'kill -9 $$'; exit $?")
    assert done.returncode == 137


@pytest.mark.parametrize(
    ("command", "status"),
    [("nonesuch-command", 127), ("/no/such/path", 127), ("/etc/passwd", 126), ("/etc", 126)],
)
async def test_a_command_that_cannot_run_has_dockers_status(box: Box, command: str, status: int) -> None:
    with pytest.raises(InvalidRequest, match="cannot run") as refused:
        await box.runtime.create(box.spec(command))
    assert refused.value.facts["exit_status"] == status


async def test_standard_input_reaches_the_command_and_ends(box: Box) -> None:
    done = await box.foreground("sh", "-c", "cat; echo end", stdin=b"abc\n")
    assert (done.returncode, done.stdout) == (0, b"abc\nend\n")


async def test_much_data_passes_both_ways_at_once(box: Box) -> None:
    data = os.urandom(4 << 20)
    done = await box.foreground("cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


async def test_without_interactive_there_is_no_input(box: Box) -> None:
    assert await box.run("sh", "-c", "cat; echo end") == (0, "end\n")


async def test_signals_to_the_client_reach_the_container(box: Box) -> None:
    spec = box.spec("sh", "-c", "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    await box.runtime.create(spec)
    with running(box.client(spec.id), stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert await asyncio.to_thread(client.stdout.readline) == b"ready\n"
        client.terminate()
        assert await asyncio.to_thread(client.stdout.read) == b"got it\n"
        assert await asyncio.to_thread(client.wait) == 5


@contextmanager
def terminal(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


def read_until(descriptor: int, words: bytes, *, within_s: float = 60.0) -> None:
    seen, deadline = b"", time.monotonic() + within_s
    while words not in seen:
        ready, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
        assert ready, f"only {seen!r} came in time"
        seen += os.read(descriptor, 1024)


@contextmanager
def running(arguments: list[str], **streams: Any) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(arguments, cwd=SOURCE, **streams)
    with process:
        try:
            yield process
        finally:
            process.kill()


async def test_a_terminal_has_our_size_and_takes_keys(box: Box) -> None:
    spec = box.spec("sh", "-c", "stty size; read line; echo got:$line; exit 4", terminal=True, interactive=True)
    await box.runtime.create(spec)
    with terminal(33, 111) as (ours, theirs):
        before = termios.tcgetattr(theirs)
        with running(box.client(spec.id, "t", "i"), stdin=theirs, stdout=theirs, stderr=theirs) as client:
            await asyncio.to_thread(read_until, ours, b"33 111\r\n")
            os.write(ours, b"hello\r")
            await asyncio.to_thread(read_until, ours, b"got:hello\r\n")
            assert await asyncio.to_thread(client.wait) == 4
        assert termios.tcgetattr(theirs) == before


async def test_a_change_of_the_window_reaches_the_container(box: Box) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    spec = box.spec("sh", "-c", script, terminal=True, interactive=True)
    await box.runtime.create(spec)
    with (
        terminal(24, 80) as (ours, theirs),
        running(box.client(spec.id, "t", "i"), stdin=theirs, stdout=theirs, stderr=theirs) as client,
    ):
        await asyncio.to_thread(read_until, ours, b"ready\r\n")
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 132, 0, 0))
        client.send_signal(signal.SIGWINCH)
        await asyncio.to_thread(read_until, ours, b"50 132\r\n")
        assert await asyncio.to_thread(client.wait) == 0


STARTER = """
import asyncio, os, signal, sys
from pathlib import Path
from netagent.runtime.runc import Runtime
from netagent.runtime.spec import ContainerSpec
async def main():
    runtime = Runtime(Path(sys.argv[1]))
    spec = ContainerSpec(id=sys.argv[2], name="box", command=("sleep", "1000"), hostname="box")
    await runtime.create(spec)
    await runtime.start(spec.id)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_container_survives_the_death_of_its_starter(box: Box) -> None:
    container_id = box.spec().id
    arguments = [sys.executable, "-c", STARTER, str(box.run_dir), container_id]
    starter = await asyncio.to_thread(subprocess.run, arguments, cwd=SOURCE, check=False)
    assert starter.returncode == -signal.SIGKILL
    run = await box.runtime.state(container_id)
    assert run.status is RunStatus.RUNNING
    monitor = int(box.runtime.layout(container_id).monitor_pid.read_text())
    parents = {
        pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in (run.pid, monitor)
    }
    assert parents[run.pid] == monitor
    assert parents[monitor] != os.getpid()
    waiting = asyncio.create_task(box.runtime.wait(container_id))
    assert await box.runtime.stop(container_id, timeout_s=0) == 137
    assert await waiting == 137


async def test_stop_lets_a_container_end_by_itself(box: Box) -> None:
    container_id = await box.start("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    eventually(lambda: "ready" in box.output(container_id))
    assert await box.runtime.stop(container_id, timeout_s=30) == 7
    assert await box.runtime.stop(container_id, timeout_s=30) == 7


async def test_stop_kills_what_does_not_end(box: Box) -> None:
    container_id = await box.start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    eventually(lambda: "ready" in box.output(container_id))
    assert await box.runtime.stop(container_id, timeout_s=0.2) == 137


async def test_states_follow_a_containers_life(box: Box) -> None:
    spec = box.spec("sleep", "1000")
    assert await box.runtime.state(spec.id) == RunState(status=RunStatus.ABSENT)
    created = await box.runtime.create(spec)
    assert await box.runtime.state(spec.id) == RunState(status=RunStatus.CREATED, pid=created.pid)
    await box.runtime.start(spec.id)
    assert await box.runtime.state(spec.id) == RunState(status=RunStatus.RUNNING, pid=created.pid)
    with pytest.raises(Conflict, match="is running"):
        await box.runtime.delete(spec.id)
    await box.runtime.kill(spec.id, signal.SIGKILL)
    await box.runtime.wait(spec.id)
    assert await box.runtime.state(spec.id) == RunState(status=RunStatus.STOPPED, exit_code=137)
    with pytest.raises(Conflict, match="is not running"):
        await box.runtime.kill(spec.id, signal.SIGTERM)
    await box.runtime.delete(spec.id)
    assert await box.runtime.state(spec.id) == RunState(status=RunStatus.STOPPED, exit_code=137)
    await box.runtime.remove_files(spec.id)
    assert await box.runtime.state(spec.id) == RunState(status=RunStatus.ABSENT)


async def test_an_unknown_container_is_named(box: Box) -> None:
    unknown = box.spec().id
    for call in (box.runtime.start(unknown), box.runtime.kill(unknown, 15), box.runtime.stop(unknown, timeout_s=1)):
        with pytest.raises(NotFound, match=f"no container {unknown[:12]}"):
            await call


async def test_a_container_that_starts_again_keeps_its_files_and_log(box: Box) -> None:
    spec = box.spec("sh", "-c", "echo run >> /counter; cat /counter; exit $(wc -l < /counter)")
    for expected in (1, 2):
        await box.runtime.create(spec)
        await box.runtime.start(spec.id)
        assert await box.runtime.wait(spec.id) == expected
    assert box.output(spec.id) == "run\n" * 3


async def test_the_host_does_not_see_what_a_container_writes(box: Box) -> None:
    mark = Path(f"/netagent-test-{secrets.token_hex(8)}")
    passwd = Path("/etc/passwd").read_bytes()
    code, output = await box.run("sh", "-c", f"touch {mark} && echo x >> /etc/passwd && tail -n 1 /etc/passwd")
    assert (code, output) == (0, "x\n")
    assert not mark.exists()
    assert Path("/etc/passwd").read_bytes() == passwd


async def test_a_rootfs_directory_stays_as_it_is(box: Box, tmp_path: Path) -> None:
    rootfs = tmp_path / "root:fs, with\\odd name"
    (rootfs / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin" / "busybox")
    (rootfs / "file").write_text("before")
    before = sorted(rootfs.rglob("*"))
    script = "echo after > /file; echo x > /new; cat /file; /bin/busybox ls /"
    code, output = await box.run("/bin/busybox", "sh", "-c", script, rootfs=str(rootfs))
    assert code == 0
    assert {"after", "new", "bin"} <= set(output.split())
    assert "etc" not in output.split()
    assert (rootfs / "file").read_text() == "before"
    assert sorted(rootfs.rglob("*")) == before


async def test_a_rootfs_that_is_no_directory_is_refused(box: Box) -> None:
    with pytest.raises(InvalidRequest, match="'/etc/passwd' is not a directory"):
        await box.runtime.create(box.spec("true", rootfs="/etc/passwd"))


async def test_a_read_only_mount_can_be_read_only(box: Box, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("text\n")
    mounts = (
        BindMount(source=str(data), destination="/ro", read_only=True),
        BindMount(source=str(data), destination="/mnt/rw"),
    )
    code, output = await box.run("sh", "-c", "cat /ro/file; touch /mnt/rw/new; ! touch /ro/newer", mounts=mounts)
    assert code == 0
    assert output.startswith("text\n")
    assert "Read-only file system" in output
    assert sorted(path.name for path in data.iterdir()) == ["file", "new"]


async def test_an_empty_command_is_refused(box: Box) -> None:
    with pytest.raises(InvalidRequest, match="no command specified"):
        await box.runtime.create(box.spec())
    assert box.runtime.ids() == ()


async def test_a_missing_bind_source_is_named(box: Box) -> None:
    mount = BindMount(source="/no/such/directory", destination="/x")
    with pytest.raises(InvalidRequest, match="bind source path does not exist: /no/such/directory"):
        await box.runtime.create(box.spec("true", mounts=(mount,)))
    assert box.runtime.ids() == ()


async def test_our_files_are_seen_and_can_change_while_it_runs(box: Box) -> None:
    script = "cat /etc/hosts; until grep -q later /etc/hosts; do sleep 0.05; done; cat /etc/hosts; hostname"
    files = (TextFile(path="/etc/hosts", text="192.0.2.1 earlier name\n"),)
    container_id = await box.start("sh", "-c", script, files=files)
    eventually(lambda: "earlier" in box.output(container_id))
    box.runtime.write_file(container_id, "/etc/hosts", "192.0.2.2 later\n")
    assert await box.runtime.wait(container_id) == 0
    assert box.output(container_id) == "192.0.2.1 earlier name\n192.0.2.2 later\nbox\n"
    with pytest.raises(NotFound, match="no file of ours at /etc/other"):
        box.runtime.write_file(container_id, "/etc/other", "")


@pytest.fixture
def sandbox() -> Iterator[Path]:
    name = f"nart-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Path("/var/run/netns") / name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def namespace(pid: int | str, kind: str) -> int:
    return Path(f"/proc/{pid}/ns/{kind}").stat().st_ino


async def test_the_sandbox_is_joined(box: Box, sandbox: Path) -> None:
    container_id = await box.start("sleep", "1000", sandbox=str(sandbox))
    pid = (await box.runtime.state(container_id)).pid
    assert namespace(pid, "net") == sandbox.stat().st_ino
    assert not any(namespace(pid, kind) == namespace("self", kind) for kind in ("pid", "mnt", "ipc", "uts"))


async def test_without_a_sandbox_the_hosts_network_is_used(box: Box) -> None:
    container_id = await box.start("sleep", "1000")
    pid = (await box.runtime.state(container_id)).pid
    assert namespace(pid, "net") == namespace("self", "net")


async def test_a_container_cannot_administer_its_network_or_reach_disks(box: Box, sandbox: Path) -> None:
    script = "ip link set lo up && exit 1; mknod /disk b 254 0 && head -c 1 /disk && exit 2; exit 0"
    code, output = await box.run("sh", "-c", script, sandbox=str(sandbox))
    assert code == 0
    assert output.count("Operation not permitted") == 2


async def test_logs_are_followed_to_the_end(box: Box) -> None:
    container_id = await box.start("sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.05; done")
    log = box.runtime.layout(container_id).log
    seen = [record async for record in logs.follow(log, until=box.runtime.wait(container_id))]
    assert [r.data for r in seen if r.stream == "stdout"] == [b"out 1\n", b"out 2\n", b"out 3\n"]
    assert [r.data for r in seen if r.stream == "stderr"] == [b"err 1\n", b"err 2\n", b"err 3\n"]
    assert [r.time for r in seen] == sorted(r.time for r in seen)


EXEC = """
import sys
from pathlib import Path
from netagent.runtime.execute import exec_arguments, execute
run_dir, container, *command = sys.argv[1:]
log = Path(run_dir) / "exec.log"
rest = {"log": log, "environment": [("K", "v")], "working_directory": "/tmp"}
arguments = exec_arguments("runc", Path(run_dir), container, command, **rest)
sys.exit(execute(arguments, log=log, interactive=True))
"""


async def test_exec_runs_a_further_command_inside(box: Box) -> None:
    container_id = await box.start("sleep", "1000")

    def execute(*command: str) -> "subprocess.CompletedProcess[bytes]":
        arguments = [sys.executable, "-c", EXEC, str(box.run_dir), container_id, *command]
        return subprocess.run(arguments, cwd=SOURCE, input=b"in\n", capture_output=True, check=False)

    done = await asyncio.to_thread(execute, "sh", "-c", "cat; echo $K; pwd; hostname; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"in\nv\n/tmp\nbox\n", b"err\n")
    assert (await asyncio.to_thread(execute, "sh", "-c", "exit 255")).returncode == 255
    missing = await asyncio.to_thread(execute, "nonesuch-command")
    assert missing.returncode == 127
    assert b"executable file not found" in missing.stderr
    assert (await asyncio.to_thread(execute, "/etc/passwd")).returncode == 126
    assert not (box.run_dir / "exec.log").exists()


async def test_a_long_run_directory_can_be_attached_to(tmp_path: Path) -> None:
    run_dir = tmp_path / ("d" * 100) / ("e" * 100)
    run_dir.mkdir(parents=True)
    box = Box(run_dir=run_dir, runtime=Runtime(run_dir))
    try:
        done = await box.foreground("echo", "far away")
        assert done.stdout == b"far away\n"
    finally:
        await box.clear()


async def test_a_killed_monitor_leaves_a_container_that_can_be_ended(box: Box) -> None:
    container_id = await box.start("sleep", "1000")
    os.kill(int(box.runtime.layout(container_id).monitor_pid.read_text()), signal.SIGKILL)
    assert (await box.runtime.state(container_id)).status is RunStatus.RUNNING
    waiting = asyncio.create_task(box.runtime.wait(container_id))
    await box.runtime.kill(container_id, signal.SIGKILL)
    assert await waiting is None
    assert (await box.runtime.state(container_id)) == RunState(status=RunStatus.STOPPED)


async def test_nothing_is_left_after_removal(box: Box) -> None:
    container_id = await box.start("sleep", "1000")
    assert box.traces()
    assert cgroups_of(container_id)
    await box.clear()
    assert box.runtime.ids() == ()
