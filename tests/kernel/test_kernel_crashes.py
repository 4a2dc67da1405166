"""The agent killed at every crash point of an attach and of a detach: the next start puts everything right."""

import io
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from netagent.firewall.ruleset import render_ruleset
from netagent.kernel.kernel import Kernel, failpoints
from netagent.plan.desired import Ruleset, State
from netagent.plan.diff import diff
from netagent.plan.union import union
from tests.support.netns import Namespace, address, bridge, endpoint, state

pytestmark = pytest.mark.kernel

_AGENT = """
import asyncio, os, pickle, sys
from netagent.kernel.kernel import Kernel

async def main():
    kernel = Kernel(namespace=sys.argv[1], iptables=sys.argv[2] or None)
    await kernel.apply(pickle.loads(sys.stdin.buffer.read()))
    await kernel.drained()
    await kernel.close()

asyncio.run(main())
"""
"""A plan carried out by a process that may be killed; the plan comes pickled from this test."""

NETWORK = state(bridge(), addresses=[address("10.9.0.1/16", "nab1")])


@pytest.fixture(params=["nftables", "iptables"])
def firewall(request: pytest.FixtureRequest) -> str:
    """What the agent programs."""
    chosen: str = request.param
    return chosen


@pytest.fixture
async def kernel(host: Namespace, firewall: str) -> AsyncIterator[Kernel]:
    """Yield the real kernel at work in ``host``, with this firewall."""
    running = Kernel(namespace=host.path, iptables=_command(firewall) or None)
    yield running
    await running.close()


def _command(firewall: str) -> str:
    return "iptables" if firewall == "iptables" else ""


def _run_agent(
    host: Namespace, plan: bytes, points: Path, nth: int, firewall: str = "nftables"
) -> tuple[int, list[str]]:
    """Carry out a plan in a process that dies at its ``nth`` crash point; return its status and the trace."""
    (points / "trace").write_text("")
    (points / "armed").write_text(str(nth))
    environment = {**os.environ, "NETAGENT_FAILPOINTS": str(points)}
    command = [sys.executable, "-c", _AGENT, host.path, _command(firewall)]
    done = subprocess.run(command, input=plan, env=environment, capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode, (points / "trace").read_text().split()


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        return (MappingProxyType, (dict(value),)) if isinstance(value, MappingProxyType) else NotImplemented


def _script(content: State, previous: State) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(diff(content, previous))
    return buffer.getvalue()


@pytest.mark.parametrize("direction", ["attach", "detach"])
async def test_a_start_after_a_crash_anywhere_converges(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace], tmp_path: Path, direction: str, firewall: str
) -> None:
    container = sandbox()
    ports = Ruleset(elements=MappingProxyType({"publish4": frozenset({"tcp . 4000 : 10.9.0.2 . 80"})}))
    attached = union([NETWORK, endpoint(container, 2), State(ruleset=ports)])
    assert attached.ruleset is not None
    before = replace(NETWORK, ruleset=render_ruleset(()))
    after = replace(attached, ruleset=render_ruleset((attached.ruleset.elements,)))
    if direction == "detach":
        before, after = after, before
    await kernel.apply(diff(before, State()))
    nth, status, seen = 0, -1, set[str]()
    while status:
        nth += 1
        status, trace = _run_agent(host, _script(after, before), tmp_path, nth, firewall)
        seen |= set(trace)
        await kernel.sweep()
        await kernel.apply(diff(after, await kernel.observe(after)))
        observed = await kernel.observe(after)
        assert str(diff(after, observed)) == "", trace
        assert not [name for name in host.links() if name.startswith("na-")], trace
        await kernel.apply(diff(before, observed))
        await kernel.drained()
        assert str(diff(before, await kernel.observe(before))) == "", trace
    assert seen <= set(failpoints())
    wanted = {"kernel.AddLink.unmarked", "kernel.AddRoute.after"} if direction == "attach" else {"kernel.reap.before"}
    assert wanted <= seen


async def test_a_link_killed_between_creation_and_mark_is_known_as_ours(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace], tmp_path: Path
) -> None:
    container = sandbox()
    await kernel.apply(diff(NETWORK, State()))
    attached = endpoint(container, 2)
    status, trace = _run_agent(host, _script(attached, State()), tmp_path, 2)
    assert (status, trace[-1]) == (-signal.SIGKILL, "kernel.AddLink.unmarked")
    assert "ifalias" not in host.links()["nae2"]
    assert sorted((await kernel.observe(State())).links) == ["nab1", "nae2"]
    await kernel.sweep()
    assert sorted(host.links()) == ["lo", "nab1"]
    assert sorted(container.links()) == ["lo"]
