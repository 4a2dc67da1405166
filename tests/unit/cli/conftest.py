"""A served fake agent, and the command line against it: in this process, or as a process of its own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result

import netagent
from netagent.cli.main import cli
from tests.support.fake_agent import ServedAgent, background_loop

Cli = Callable[..., Result]
Process = Callable[..., "Ended"]
Start = Callable[..., "AbstractContextManager[subprocess.Popen[str]]"]


class Ended(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def agent_loop() -> Iterator[asyncio.AbstractEventLoop]:
    with background_loop() as loop:
        yield loop


@pytest.fixture
def agent(tmp_path: Path, agent_loop: asyncio.AbstractEventLoop) -> Iterator[ServedAgent]:
    served = ServedAgent(tmp_path / "run", agent_loop)
    served.start()
    yield served
    served.stop()


@pytest.fixture
def netagent_cli(agent: ServedAgent) -> Cli:
    """Run a command line in this process."""

    def invoke(*words: str, **options: Any) -> Result:
        result = CliRunner().invoke(cli, ["--socket", str(agent.socket_path), *words], prog_name="netagent", **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def netagent_start(agent: ServedAgent) -> Start:
    """Start a command line as a process, with real standard streams; it is ended with the block."""

    @contextmanager
    def start(*words: str, **options: Any) -> Iterator["subprocess.Popen[str]"]:
        process = subprocess.Popen(
            [sys.executable, "-m", "netagent", *words],
            env={**os.environ, "NETAGENT_SOCKET": str(agent.socket_path)},
            cwd=Path(netagent.__file__).parents[1],
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()

    return start


@pytest.fixture
def netagent_process(netagent_start: Start) -> Process:
    """Run a command line as a process to its end."""

    def run(*words: str, input_text: str | None = None, **options: Any) -> Ended:
        if input_text is not None:
            options["stdin"] = subprocess.PIPE
        with netagent_start(*words, **options) as process:
            out, err = process.communicate(input_text, timeout=60)
        return Ended(process.returncode, out or "", err or "")

    return run
