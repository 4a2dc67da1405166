"""conmon: the process that outlives the agent and holds a container's terminal, log and exit status.

conmon forks itself away from its starter, runs the OCI runtime's ``create`` and reports over a pipe (``_OCI_SYNCPIPE``,
conmon ``src/parent_pipe_fd.c``), whose writing end it holds until it ends and passes to nobody. An agent that dies
before it has read the report leaves a conmon that may still be busy creating, and the end of a container is not reached
before its monitors are gone. So that pipe is a FIFO in the container's directory, and another agent can ask the kernel
whether anybody holds it: a search of /proc may miss a process that just forks, or has not become conmon yet.
"""

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from netagent.errors import EnvironmentProblem, Unavailable
from netagent.model.ids import ContainerId, short
from netagent.runtime.layout import LOG_NAME, Layout
from netagent.runtime.spec import ContainerSpec

CREATE_TIMEOUT_S = 60.0
LOG_LIMIT_BYTES = 32 << 20
"""conmon starts its log anew at this size: the run directory is in memory on most hosts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What conmon answers: the container's pid, or -1 and the runtime's own words."""

    pid: int
    message: str


def monitor_arguments(
    monitor: str, spec: ContainerSpec, layout: Layout, *, runtime: str, runtime_options: Sequence[str]
) -> list[str]:
    """Return conmon's command line. It runs in the container's directory: a colon in the log's path would cut it."""
    arguments = [monitor, "--api-version", "1", "--cid", spec.id, "--cuuid", spec.id, "--name", spec.name]
    arguments += ["--runtime", runtime]
    for option in runtime_options:
        arguments += ["--runtime-arg", option]
    directory = str(layout.directory)
    # With --full-attach the socket lies in the bundle; conmon binds it through /proc/self/fd, so no path is too long.
    arguments += ["--bundle", directory, "--full-attach", "--persist-dir", directory]
    arguments += ["--container-pidfile", str(layout.pid), "--conmon-pidfile", str(layout.monitor_pid)]
    arguments += ["--log-path", f"k8s-file:{LOG_NAME}", "--log-size-max", str(LOG_LIMIT_BYTES)]
    arguments += ["--log-level", "warning"]
    if spec.terminal:
        arguments.append("--terminal")
    if spec.interactive:
        arguments.append("--stdin")
    return arguments


async def launch(arguments: Sequence[str], layout: Layout, environment: dict[str, str]) -> Report:
    """Start conmon and return its report once the OCI runtime has created the container, or refused to."""
    with suppress(FileExistsError):
        os.mkfifo(layout.report, 0o600)
    with os.fdopen(_open_report(layout), "rb", buffering=0) as report:
        writing = os.open(layout.report, os.O_WRONLY)
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                cwd=layout.directory,
                env=environment | {"_OCI_SYNCPIPE": str(writing), "TZ": "UTC"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(writing,),
                start_new_session=True,
            )
        except OSError as error:
            raise EnvironmentProblem(f"cannot start {arguments[0]}: {error.strerror}") from error
        finally:
            os.close(writing)
        # Ends as soon as conmon has forked itself away, long before the report.
        _, complaint = await process.communicate()
        line = await _read_line(report)
    if not line:
        text = complaint.decode(errors="replace").strip() or "it ended without an answer"
        raise EnvironmentProblem(f"conmon failed: {text}")
    answer = json.loads(line)
    return Report(pid=answer["data"], message=answer.get("message", "").strip())


async def _read_line(pipe: BinaryIO) -> str:
    stream = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), pipe)
    try:
        async with asyncio.timeout(CREATE_TIMEOUT_S):
            return (await stream.readline()).decode(errors="replace")
    except TimeoutError as error:
        raise Unavailable(f"the OCI runtime did not create the container within {CREATE_TIMEOUT_S:.0f} s") from error
    finally:
        transport.close()


def open_monitor(container_id: ContainerId, layout: Layout) -> int | None:
    """Return a pidfd of the container's conmon, to be closed by the caller, or None if it is gone."""
    try:
        return _open_if_monitor(int(layout.monitor_pid.read_text()), container_id)
    except (FileNotFoundError, ValueError):
        return None


async def readable(descriptor: int) -> None:
    """Return when ``descriptor`` can be read: a process's, when it has ended (pidfd_open(2))."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)


async def monitors_gone(layout: Layout, *, timeout_s: float) -> bool:
    """Tell whether all that was started to create or watch the container has ended within the time.

    pipe(7): a read returns nothing once the last writing end is closed.
    """
    try:
        reading = _open_report(layout)
    except FileNotFoundError:
        return True
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    if not os.read(reading, 4096):
                        return True
                except BlockingIOError:
                    await readable(reading)
    except TimeoutError:
        return False
    finally:
        os.close(reading)


def _open_report(layout: Layout) -> int:
    return os.open(layout.report, os.O_RDONLY | os.O_NONBLOCK)


def kill_monitors(container_id: ContainerId, layout: Layout) -> None:
    """Send SIGKILL to every conmon of the container that is found.

    One that has only just been started has not written its pid yet: it is looked for in /proc.
    """
    if layout.monitor_pid.exists():
        found = [open_monitor(container_id, layout)]
    else:
        found = [_open_if_monitor(int(path.name), container_id) for path in Path("/proc").glob("[0-9]*")]
    for pidfd in found:
        if pidfd is not None:
            _kill(pidfd)
            os.close(pidfd)


def _open_if_monitor(pid: int, container_id: ContainerId) -> int | None:
    """Return a pidfd of ``pid`` if it is a conmon of the container.

    Opened before looking: once the descriptor is there, the pid cannot come to mean another process unnoticed.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    if container_id.encode() in words and words[0].rpartition(b"/")[2] == b"conmon":
        return pidfd
    os.close(pidfd)
    return None


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


def describe(container_id: ContainerId) -> str:
    """Return how a container is called in messages of this package."""
    return f"container {short(container_id)}"
