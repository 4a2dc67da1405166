"""Moving a network to another driver goes on whatever the kernel says to the first try."""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import suppress

import pytest

from netagent.errors import Conflict, KernelRejected
from netagent.services.moving import MovingService
from netagent.services.requests import NetworkChange
from tests.support.agent import Agent, kernel_tables, settled


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
    await _until_moved(agent, "wide")


async def _until_moved(agent: Agent, name: str) -> None:
    """Let an agent go through with the moves that are going on, until that of one network is over."""
    moving = MovingService(agent.context)
    for access in agent.stores.all:
        access.subscribe(moving.store_changed)
    # As after the change that began the move: from here on nothing changes any more in the store.
    moving.store_changed(frozenset(agent.stores.cluster.mirror.entries))
    life = asyncio.create_task(moving.run())
    try:
        async with asyncio.timeout(30):
            while agent.networks.find(name).before is not None:
                await asyncio.sleep(0.001)
    finally:
        life.cancel()
        with suppress(asyncio.CancelledError):
            await life


async def test_a_move_that_cannot_be_made_is_called_back_and_holds_up_no_other(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.services.moving.FIRST_PAUSE_S", 0.001)
    for name, subnet in (("wide", "10.1.0.0/16"), ("other", "10.2.0.0/16")):
        await agent.create_network(name, subnets=(subnet,))
        await agent.attach(f"in-{name}", name)
    await settled()
    before = kernel_tables(agent.kernel)
    agent.kernel.refused = "link add nao"
    await agent.networks.update(NetworkChange(name="wide", driver="gre", options={"backend": "ovs"}))
    await agent.networks.update(NetworkChange(name="other", driver="route"))
    await _until_moved(agent, "other")
    with pytest.raises(Conflict, match="still being moved from the driver vxlan to gre") as caught:
        await agent.networks.update(NetworkChange(name="wide", driver="route"))
    assert caught.value.hint.endswith("; to turn back: netagent network update --driver vxlan wide")
    back = await agent.networks.update(NetworkChange(name="wide", driver="vxlan"))
    assert (back.driver, back.back) == ("vxlan", True)
    with pytest.raises(Conflict, match="still being moved from the driver gre to vxlan") as caught:
        await agent.networks.update(NetworkChange(name="wide", driver="gre"))
    assert "turn back" not in caught.value.hint
    await _until_moved(agent, "wide")
    assert not agent.networks.find("wide").back
    await agent.networks.update(NetworkChange(name="other", driver="vxlan"))
    await _until_moved(agent, "other")
    await settled()
    assert not await agent.engine.reconcile()
    assert kernel_tables(agent.kernel) == before
