"""Moving a network to another driver goes on whatever the kernel says to the first try."""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import suppress

import pytest

from netagent.errors import KernelRejected
from netagent.services.moving import MovingService
from netagent.services.requests import NetworkChange
from tests.support.agent import Agent


async def test_a_step_that_the_kernel_refused_is_tried_again_by_itself(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store says nothing new then: without its own clock the move would never end."""
    monkeypatch.setattr("netagent.services.moving.FIRST_PAUSE_S", 0.001)
    await agent.create_network("wide")
    await agent.attach("web", "wide")
    await agent.networks.update(NetworkChange(name="wide", driver="route"))
    answers: Iterator[KernelRejected | None] = iter([KernelRejected("route", errno.ENOBUFS, "no buffer space"), None])
    reconcile = agent.engine.reconcile

    async def refused_once() -> object:
        if (refusal := next(answers, None)) is not None:
            raise refusal
        return await reconcile()

    monkeypatch.setattr(agent.engine, "reconcile", refused_once)
    moving = MovingService(agent.context)
    for access in agent.stores.all:
        access.subscribe(moving.store_changed)
    # As after the change that began the move: from here on nothing changes any more in the store.
    moving.store_changed(frozenset(agent.stores.cluster.mirror.entries))
    life = asyncio.create_task(moving.run())
    try:
        async with asyncio.timeout(30):
            while any(n.before is not None for n in agent.knowledge.snapshot().networks.values()):
                await asyncio.sleep(0.001)
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life
