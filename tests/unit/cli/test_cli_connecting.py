"""How the command line finds the agent, and what it says when there is none."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import netagent
from netagent.cli.main import cli
from netagent.errors import KernelRejected
from netagent.services.requests import NetworkView
from tests.support.fake_agent import ServedAgent
from tests.support.world import an_overlay
from tests.unit.cli.conftest import Cli, Process, Start


def _ls(socket_path: Path) -> Result:
    return CliRunner().invoke(cli, ["--socket", str(socket_path), "network", "ls"])


def test_an_agent_that_does_not_run_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once is without gRPC, which would try again and again."""
    monkeypatch.setattr("netagent.cli.client.Local.channel", lambda *_: pytest.fail("gRPC was asked"))
    path = tmp_path / "agent.sock"
    result = _ls(path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"netagent: cannot reach the agent at {path} (is it running? start it with: netagent agent)\n"
    )


def test_a_socket_that_a_dead_agent_left_is_the_same(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(tmp_path / "agent.sock"))
    assert "is it running?" in _ls(tmp_path / "agent.sock").stderr


def test_an_agent_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "netagent.cli.client._OPTIONS",
        (("grpc.min_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 100)),
    )
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(path))
        silent.listen()
        result = _ls(path)
    assert (result.exit_code, result.stderr.partition(" (")[0]) == (1, f"netagent: the agent at {path} does not answer")


def test_a_socket_that_is_not_for_us_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    result = _ls(tmp_path / "agent.sock")
    path = tmp_path / "agent.sock"
    assert result.exit_code == 1
    assert result.stderr == (
        f"netagent: no permission to connect to the agent at {path} (run as root, or join the group netagent)\n"
    )


def test_a_path_beyond_the_kernels_limit_is_said(tmp_path: Path) -> None:
    result = _ls(tmp_path / ("d" * 120))
    assert (result.exit_code, "socket path is too long" in result.stderr) == (1, True)


def test_an_agent_that_stops_during_a_call_is_said(agent: ServedAgent, netagent_start: Start) -> None:
    agent.fake.events.publish("host", "join", "h1")
    with netagent_start("events", "--follow") as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        agent.stop()
        _, complaint = following.communicate(timeout=60)
    assert following.returncode == 1
    # gRPC may notice the closed connection before it has read the reason.
    assert complaint in (
        "netagent: the agent is stopping (ask again when it is back)\n",
        f"netagent: lost the agent at {agent.socket_path} (has it been stopped?)\n",
    )


def test_an_error_of_an_unknown_class_is_still_one_line(agent: ServedAgent, netagent_cli: Cli) -> None:
    agent.fake.refusals["network list"] = KernelRejected("link add na1", 17, "File\nexists")
    result = netagent_cli("network", "ls")
    assert (result.exit_code, result.stderr) == (1, "netagent: kernel refused 'link add na1': File exists\n")


def test_the_environment_names_the_socket(netagent_process: Process) -> None:
    assert netagent_process("network", "ls").code == 0


def test_a_reader_that_goes_away_is_no_error_to_talk_about(agent: ServedAgent, netagent_process: Process) -> None:
    agent.fake.networks_known = [NetworkView(network=an_overlay())]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = netagent_process("network", "ls", stdout=writing)
    finally:
        os.close(writing)
    assert (result.code, result.err) == (141, "")


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("network", "--help"), ("run", "--help")])
def test_help_needs_neither_agent_nor_grpc(words: tuple[str, ...]) -> None:
    script = f"import sys; sys.argv[1:] = {words!r}; import netagent.__main__ as m\n"
    script += "try:\n    m.main()\nfinally:\n    print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(netagent.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"grpc", "asyncio", "rich", "msgspec"} & set(run.stdout.splitlines()[-1].split())


def test_every_command_listed_can_be_loaded_and_has_help() -> None:
    from netagent.cli.main import _COMMANDS

    for name in _COMMANDS:
        result = CliRunner().invoke(cli, [name, "--help"])
        assert (name, result.exit_code) == (name, 0)
        assert result.stdout.startswith("Usage: ")
