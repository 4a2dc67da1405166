"""``run``, ``exec``, ``logs`` and ``start -a``: what passes between a container's monitor and the command line."""

import asyncio
import json
import os
import pty
import signal
import stat
import subprocess
import termios
from dataclasses import replace
from pathlib import Path

import pytest

from netagent.errors import AlreadyExists, EnvironmentProblem, InvalidRequest
from netagent.model.container import Container, ContainerKind, ContainerState
from netagent.model.ids import ContainerId
from netagent.services.requests import Connection, ContainerView, NewContainer
from tests.support.fake_agent import ServedAgent, container_directory, fake_monitor
from tests.unit.cli.conftest import Cli, Process, Start

ID = "c0" * 32


def _verbs(agent: ServedAgent) -> list[str]:
    return [entry[0] for entry in agent.fake.asked]


def _put(agent: ServedAgent, *, state: ContainerState, exit_code: int | None = None) -> Path:
    """Let the agent know a container ``web``; return the directory of its files."""
    container = Container(
        id=ContainerId(ID), name="web", kind=ContainerKind.RUN, state=state, exit_code=exit_code, started="x"
    )
    agent.fake.put(ContainerView(container=container))
    directory = container_directory(agent.run_dir, ID)
    directory.mkdir(parents=True)
    return directory


def test_run_in_the_background_prints_the_id(agent: ServedAgent, netagent_cli: Cli) -> None:
    result = netagent_cli("run", "-d", "--name", "web", "sleep", "1")
    assert (result.exit_code, result.output) == (0, ID + "\n")
    assert _verbs(agent) == ["create", "start"]


def test_run_asks_for_what_its_options_say(
    agent: ServedAgent, netagent_cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INHERITED", "from the caller")
    monkeypatch.chdir(tmp_path)
    netagent_cli(
        *(
            "run",
            "-dit",
            "--rm",
            "--name",
            "web",
            "--net",
            "app",
            "--ip",
            "10.0.0.2",
            "--mac-address",
            "02:00:00:00:00:01",
        ),
        *("--alias", "w", "-p", "80:80", "-h", "inside", "-e", "A=1", "-e", "INHERITED", "-e", "UNSET_HERE"),
        *("-v", "/srv:/srv:ro", "--rootfs", "root", "-w", "/tmp", "sh", "-c", "echo -- hi", "--name", "x"),
    )
    assert agent.fake.asked[0] == (
        "create",
        NewContainer(
            command=("sh", "-c", "echo -- hi", "--name", "x"),
            name="web",
            connection=Connection(
                networks=("app",),
                addresses=("10.0.0.2",),
                mac="02:00:00:00:00:01",
                aliases=("w",),
                publish=("80:80",),
            ),
            hostname="inside",
            environment=("A=1", "INHERITED=from the caller"),
            mounts=("/srv:/srv:ro",),
            rootfs=str(tmp_path / "root"),
            terminal=True,
            interactive=True,
            auto_remove=True,
            working_directory="/tmp",
        ),
    )


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("--", "echo", "--", "-d"), ("echo", "--", "-d")),
        (("echo", "--", "-d"), ("echo", "--", "-d")),
        (("--", "-odd"), ("-odd",)),
    ],
)
def test_the_command_may_stand_behind_dashes(
    agent: ServedAgent, netagent_cli: Cli, words: tuple[str, ...], command: tuple[str, ...]
) -> None:
    netagent_cli("run", "-d", *words)
    assert agent.fake.asked[0][1].command == command


def test_warnings_are_shown_as_docker_does(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.warnings = ("Published ports are discarded when using host network mode",)
    result = netagent_cli("run", "-d", "--network", "host", "-p", "80:80", "true")
    assert (result.exit_code, result.stdout) == (0, ID + "\n")
    assert result.stderr == "WARNING: Published ports are discarded when using host network mode\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AlreadyExists("taken"), 125),
        (InvalidRequest("cannot run 'x': not found", exit_status=127), 127),
        (InvalidRequest("cannot run '/etc': permission denied", exit_status=126), 126),
    ],
)
def test_a_refused_run_ends_as_dockers_does(
    agent: ServedAgent, netagent_cli: Cli, error: InvalidRequest, code: int
) -> None:
    agent.fake.refusals["create"] = error
    result = netagent_cli("run", "-d", "x")
    assert (result.exit_code, result.stderr) == (code, f"netagent: {error.message}\n")


@pytest.mark.parametrize("words", [("run",), ("run", "--bad", "x"), ("exec", "web"), ("exec", "--bad", "web", "x")])
def test_wrong_usage_is_not_taken_for_the_commands_status(netagent_cli: Cli, words: tuple[str, ...]) -> None:
    assert netagent_cli(*words).exit_code == 125


def test_an_unreachable_agent_is_not_taken_for_the_commands_status(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.stop()
    result = netagent_cli("run", "true")
    assert (result.exit_code, "cannot reach the agent" in result.stderr) == (125, True)


def test_run_passes_output_and_exit_status(agent: ServedAgent, netagent_process: Process) -> None:
    directory = container_directory(agent.run_dir, ID)
    with fake_monitor(directory, b"\2out\n", b"\3err\n", code=7):
        result = netagent_process("run", "--name", "web", "sh")
    assert result == (7, "out\n", "err\n")
    assert _verbs(agent)[:2] == ["create", "start"]
    assert "remove" not in _verbs(agent)


def test_run_passes_input(agent: ServedAgent, netagent_process: Process) -> None:
    with fake_monitor(container_directory(agent.run_dir, ID), b"echo", code=0) as received:
        assert netagent_process("run", "-i", "cat", input_text="over and back\n") == (0, "over and back\n", "")
        assert b"".join(received) == b"over and back\n"


def test_run_without_i_has_no_input(agent: ServedAgent, netagent_process: Process) -> None:
    with fake_monitor(container_directory(agent.run_dir, ID), b"\2done\n", code=0) as received:
        assert netagent_process("run", "cat", input_text="unwanted\n") == (0, "done\n", "")
        assert received == []


@pytest.mark.parametrize("options", [(), ("--rm",)])
def test_run_ends_after_the_agent_has_dealt_with_the_end(
    agent: ServedAgent, netagent_start: Start, options: tuple[str, ...]
) -> None:
    agent.fake.gates["wait"] = asyncio.Event()
    with (
        fake_monitor(container_directory(agent.run_dir, ID), b"\2done\n", code=3),
        netagent_start("run", *options, "true") as running,
    ):
        assert running.stdout is not None
        assert running.stdout.readline() == "done\n"
        agent.until(lambda: "wait" in _verbs(agent))
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.1)
        agent.call(agent.fake.gates["wait"].set)
        assert running.wait(30) == 3


def test_run_ends_with_the_monitors_status_when_the_agent_goes_away(agent: ServedAgent, netagent_start: Start) -> None:
    agent.fake.gates["wait"] = asyncio.Event()
    with (
        fake_monitor(container_directory(agent.run_dir, ID), b"\2ready\n", b"wait", code=6) as received,
        netagent_start("run", "true") as running,
    ):
        agent.until(lambda: "wait" in _verbs(agent))
        agent.stop()
        received.append(b"end")
        assert running.wait(30) == 6


def test_a_run_that_is_interrupted_while_it_starts_leaves_nothing(agent: ServedAgent, netagent_start: Start) -> None:
    agent.fake.gates["start"] = asyncio.Event()
    with netagent_start("run", "-d", "--name", "web", "sleep", "9") as running:
        agent.until(lambda: "start" in _verbs(agent))
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    assert ("remove", ID, True) in agent.fake.asked
    agent.call(agent.fake.gates["start"].set)


def test_without_a_status_from_the_monitor_the_agents_counts(agent: ServedAgent, netagent_process: Process) -> None:
    agent.fake.gates["wait"] = asyncio.Event()
    directory = container_directory(agent.run_dir, ID)
    with fake_monitor(directory, b"\2done\n", code=None, vanish=True):
        _end_with(agent, 9)
        result = netagent_process("run", "true")
    assert result == (9, "done\n", "")


def _end_with(agent: ServedAgent, code: int) -> None:
    """Let the agent answer with ``code`` once it is asked to wait."""
    note = agent.fake.note

    def noting(verb: str, *arguments: object) -> None:
        note(verb, *arguments)
        if verb == "wait":
            view = agent.fake.container(ID)
            agent.fake.put(replace(view, container=replace(view.container, exit_code=code)))
            agent.fake.gates["wait"].set()

    agent.fake.note = noting  # type: ignore[method-assign]


def test_a_container_that_cannot_be_started_is_removed_with_rm_only(
    agent: ServedAgent, netagent_process: Process
) -> None:
    agent.fake.refusals["start"] = EnvironmentProblem("the OCI runtime refused")
    with fake_monitor(container_directory(agent.run_dir, ID), code=None):
        kept = netagent_process("run", "true")
    assert (kept, _verbs(agent)) == ((125, "", "netagent: the OCI runtime refused\n"), ["create", "start"])
    result = netagent_process("run", "-d", "--rm", "true")
    assert (result.code, agent.fake.asked[-1]) == (125, ("remove", ID, True))


def test_a_container_that_we_cannot_connect_to_is_removed(agent: ServedAgent, netagent_process: Process) -> None:
    result = netagent_process("run", "true")
    assert (result.code, result.out) == (125, "")
    assert "no running container listens at" in result.err
    assert _verbs(agent) == ["create", "remove"]


def test_signals_reach_the_container(agent: ServedAgent, netagent_start: Start) -> None:
    directory = container_directory(agent.run_dir, ID)
    with (
        fake_monitor(directory, b"\2ready\n", b"wait", code=143) as received,
        netagent_start("run", "sleep", "9") as running,
    ):
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGTERM)
        agent.until(lambda: ("kill", ID, signal.SIGTERM) in agent.fake.asked)
        received.append(b"end")
        assert running.wait(30) == 143


def test_a_terminal_is_refused_where_there_is_none(agent: ServedAgent, netagent_process: Process) -> None:
    result = netagent_process("run", "-it", "sh")
    assert result == (125, "", "netagent: the input device is not a TTY (leave out -t)\n")
    assert agent.fake.asked == []


def test_the_terminal_has_its_size_before_the_command_runs(agent: ServedAgent, netagent_start: Start) -> None:
    directory = container_directory(agent.run_dir, ID)
    agent.fake.gates["start"] = asyncio.Event()
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with fake_monitor(directory, b"\2hi\r\n", code=0):
        os.mkfifo(directory / "ctl")
        control = os.open(directory / "ctl", os.O_RDWR | os.O_NONBLOCK)
        with netagent_start("run", "-it", "sh", stdin=theirs, stdout=theirs) as running:
            agent.until(lambda: "start" in _verbs(agent))
            assert os.read(control, 100) == b"1 24 80\n"
            agent.call(agent.fake.gates["start"].set)
            assert running.wait(30) == 0
    for descriptor in (ours, theirs, control):
        os.close(descriptor)


@pytest.fixture
def runc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the OCI runtime that prints its arguments and ends with 5; conmon only has to be there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("runc", '#!/bin/sh\nprintf "%s\\n" "$@"; cat; exit 5\n'), ("conmon", "")):
        (programs / name).write_text(text)
        (programs / name).chmod((programs / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs / "runc"


@pytest.mark.usefixtures("runc")
@pytest.mark.parametrize("dashes", [(), ("--",)])
def test_exec_runs_the_command_by_the_runtime(
    agent: ServedAgent, netagent_process: Process, dashes: tuple[str, ...]
) -> None:
    _put(agent, state=ContainerState.RUNNING)
    words = ("exec", "-i", "-e", "A=1", "-w", "/tmp", "web", *dashes, "cat", "-n")
    result = netagent_process(*words, input_text="input\n")
    arguments = result.out.splitlines()
    assert result.code == 5
    assert arguments[0] == f"--root={agent.run_dir}/runc"
    assert arguments[-9:] == ["exec", "--env", "A=1", "--cwd", "/tmp", ID, "cat", "-n", "input"]


@pytest.mark.usefixtures("runc")
def test_exec_without_i_has_no_input(agent: ServedAgent, netagent_process: Process) -> None:
    _put(agent, state=ContainerState.RUNNING)
    assert "unwanted" not in netagent_process("exec", "web", "cat", input_text="unwanted\n").out


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("web", "netagent: container web is not running (netagent start web)\n"),
        ("gone", "netagent: No such container: gone\n"),
    ],
)
def test_exec_needs_a_running_container(agent: ServedAgent, netagent_cli: Cli, name: str, complaint: str) -> None:
    _put(agent, state=ContainerState.EXITED, exit_code=0)
    result = netagent_cli("exec", name, "--", "true")
    assert (result.exit_code, result.stderr) == (125, complaint)


_LOG = (
    b"2026-01-02T03:04:05.1+00:00 stdout F one\n"
    b"2026-01-02T03:04:05.2+00:00 stderr F oops\n"
    b"2026-01-02T03:04:05.3+00:00 stdout P tw\n"
    b"2026-01-02T03:04:05.4+00:00 stdout F o\n"
)


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        ((), "one\ntwo\n", "oops\n"),
        (("--tail", "1"), "two\n", ""),
        (("-t",), "2026-01-02T03:04:05.1Z one\n2026-01-02T03:04:05.3Z two\n", "2026-01-02T03:04:05.2Z oops\n"),
        (("-f",), "one\ntwo\n", "oops\n"),
    ],
)
def test_logs_go_to_the_streams_they_came_from(
    agent: ServedAgent, netagent_cli: Cli, options: tuple[str, ...], out: str, err: str
) -> None:
    (_put(agent, state=ContainerState.EXITED, exit_code=0) / "log").write_bytes(_LOG)
    result = netagent_cli("logs", *options, "web")
    assert (result.exit_code, result.stdout, result.stderr) == (0, out, err)


def test_logs_as_json_say_when_and_where(agent: ServedAgent, netagent_cli: Cli) -> None:
    (_put(agent, state=ContainerState.EXITED) / "log").write_bytes(_LOG)
    lines = netagent_cli("logs", "--format", "json", "--tail", "2", "web").stdout.splitlines()
    assert json.loads(lines[0]) == {"time": "2026-01-02T03:04:05.2Z", "stream": "stderr", "log": "oops\n"}
    assert len(lines) == 3


def test_followed_logs_end_with_the_container(agent: ServedAgent, netagent_start: Start) -> None:
    log = _put(agent, state=ContainerState.RUNNING) / "log"
    log.write_bytes(_LOG)
    agent.fake.gates["wait"] = asyncio.Event()
    with netagent_start("logs", "-f", "--tail", "1", "web") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "two\n"
        with log.open("ab") as file:
            file.write(b"2026-01-02T03:04:06+00:00 stdout F three\n")
        assert following.stdout.readline() == "three\n"
        agent.call(agent.fake.gates["wait"].set)
        assert following.wait(30) == 0


def test_followed_logs_can_be_left(agent: ServedAgent, netagent_start: Start) -> None:
    (_put(agent, state=ContainerState.RUNNING) / "log").write_bytes(_LOG)
    agent.fake.gates["wait"] = asyncio.Event()
    with netagent_start("logs", "-f", "web") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "one\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 130


@pytest.mark.parametrize(
    ("tail", "code"),
    [("x", 2), ("-1", 0)],
)
def test_tail_takes_a_number(agent: ServedAgent, netagent_cli: Cli, tail: str, code: int) -> None:
    (_put(agent, state=ContainerState.EXITED) / "log").write_bytes(_LOG)
    assert netagent_cli("logs", "--tail", tail, "web").exit_code == code


def test_there_are_no_logs_of_what_others_run(agent: ServedAgent, netagent_cli: Cli) -> None:
    container = Container(id=ContainerId(ID), name="pod", kind=ContainerKind.CNI)
    agent.fake.put(ContainerView(container=container))
    result = netagent_cli("logs", "pod")
    assert (result.exit_code, result.stderr.partition(" (")[0]) == (
        1,
        "netagent: container pod was not started by netagent",
    )


def test_start_attached_shows_this_starts_output_and_ends_with_its_status(
    agent: ServedAgent, netagent_start: Start
) -> None:
    log = _put(agent, state=ContainerState.EXITED, exit_code=4) / "log"
    log.write_bytes(_LOG)
    agent.fake.gates["wait"] = asyncio.Event()
    with netagent_start("start", "-a", "web") as running:
        agent.until(lambda: "wait" in _verbs(agent))
        with log.open("ab") as file:
            file.write(b"2026-01-02T03:04:06+00:00 stdout F again\n")
        running.send_signal(signal.SIGINT)
        agent.until(lambda: ("kill", ID, signal.SIGINT) in agent.fake.asked)
        agent.call(agent.fake.gates["wait"].set)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (4, "again\n", "")


def test_only_one_container_can_be_started_attached(netagent_cli: Cli) -> None:
    assert netagent_cli("start", "-a", "one", "two").exit_code == 2


def test_a_container_that_cannot_be_started_attached_says_why(agent: ServedAgent, netagent_cli: Cli) -> None:
    (_put(agent, state=ContainerState.EXITED) / "log").write_bytes(_LOG)
    agent.fake.refusals["start"] = InvalidRequest("network app not found")
    result = netagent_cli("start", "-a", "web")
    assert (result.exit_code, result.output) == (1, "netagent: network app not found\n")


def test_agent_passes_only_the_options_given(monkeypatch: pytest.MonkeyPatch, netagent_cli: Cli) -> None:
    given: list[object] = []
    monkeypatch.setattr("netagent.daemon.main.main", lambda **options: given.append(options))
    netagent_cli("agent", "--config", "/etc/x.toml", "--store", "etcd://h:1", "--log-level", "debug")
    netagent_cli("agent")
    assert given == [
        {"config_path": "/etc/x.toml", "overrides": {"store": "etcd://h:1", "log_level": "debug"}},
        {"config_path": None, "overrides": {}},
    ]
