"""Agents for these tests: started by a call, stopped at the end, and never waiting for the clock."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import pytest

from netagent.store.memory import MemoryStore
from tests.support.agent import Agent
from tests.support.world import a_host


class StartAgent(Protocol):
    async def __call__(self, number: int = 1, **parts: Any) -> Agent: ...


@pytest.fixture(autouse=True)
def _no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.services.publisher.SETTLE_S", 0)
    monkeypatch.setattr("netagent.reconcile.engine.SETTLE_S", 0)
    monkeypatch.setattr("netagent.services.ports.SETTLE_S", 0)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where the agents keep their files: in memory if that can be, for a disk would be waited for most of the time."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as path:
        yield Path(path)


@pytest.fixture
async def start_agent(directory: Path) -> AsyncIterator[StartAgent]:
    """Start the agent of host ``number``; a second call for the same number, after ``stop``, is its next life."""
    agents: list[Agent] = []

    async def start(number: int = 1, **parts: Any) -> Agent:
        recover = parts.pop("recover", True)
        agent = Agent(directory / f"h{number}", **{"host": a_host(number), **parts})
        agents.append(agent)
        await agent.start(recover=recover)
        return agent

    yield start
    for agent in agents:
        await agent.stop()


@pytest.fixture
def cluster() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def agent(start_agent: StartAgent, cluster: MemoryStore) -> Agent:
    """The agent of one host of a cluster."""
    return await start_agent(cluster=cluster)
