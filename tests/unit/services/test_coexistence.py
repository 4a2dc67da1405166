"""Marks in other people's firewalls are tried again until they are there."""

import asyncio

import pytest

from netagent.errors import EnvironmentProblem
from netagent.firewall.marks import Needs, Presence
from netagent.services.coexistence import Coexistence
from netagent.services.exposure import ExposureService
from tests.support.agent import Agent


class BusyFirewall:
    """Somebody else's firewall, of which nothing can be had for the first ``failures`` times."""

    name = "busy"

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.marked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def reconcile(self, needs: Needs | None, presence: Presence) -> list[str]:
        if self.failures:
            self.failures -= 1
            raise EnvironmentProblem("busy", hint="try again")
        self._loop.call_soon_threadsafe(self.marked.set)
        return []


async def test_a_firewall_that_refused_is_asked_again_though_nothing_happens(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("SETTLE_S", "PAUSE_S", "FIRST_RETRY_S"):
        monkeypatch.setattr(f"netagent.services.coexistence.{pause}", 0)
    firewall = BusyFirewall(failures=3)
    coexistence = Coexistence(agent.context, ExposureService(agent.context), [firewall], frozenset({"busy"}))
    coexistence.request()
    running = asyncio.ensure_future(coexistence.run())
    try:
        async with asyncio.timeout(30):
            await firewall.marked.wait()
    finally:
        running.cancel()
    assert not firewall.failures
