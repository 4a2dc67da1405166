"""Events: for those who ask later, for those who listen now, and never a reason to wait."""

import asyncio

import pytest

from netagent.services.events import BACKLOG_LIMIT, RECENT_LIMIT, EventBus
from tests.support.agent import TIME


@pytest.fixture
def bus() -> EventBus:
    return EventBus(lambda: TIME)


async def test_a_listener_hears_what_was_and_what_comes_in_order(bus: EventBus) -> None:
    bus.publish("network", "create", "1", name="a")
    listening = bus.follow()
    assert (await anext(listening)).action == "create"
    waiting = asyncio.ensure_future(anext(listening))
    await asyncio.sleep(0)
    bus.publish("network", "destroy", "1", name="a")
    event = await waiting
    assert (event.time, event.type, event.action, event.id, dict(event.attributes)) == (
        TIME,
        "network",
        "destroy",
        "1",
        {"name": "a"},
    )
    await listening.aclose()  # type: ignore[attr-defined]


async def test_two_listeners_hear_the_same(bus: EventBus) -> None:
    first, second = bus.follow(), bus.follow()
    bus.publish("container", "start", "1")
    assert await anext(first) == await anext(second)
    for listening in (first, second):
        await listening.aclose()  # type: ignore[attr-defined]


async def test_a_listener_that_left_costs_nothing(bus: EventBus) -> None:
    listening = bus.follow()
    bus.publish("container", "start", "1")
    await anext(listening)
    assert len(bus._listeners) == 1
    await listening.aclose()  # type: ignore[attr-defined]
    assert not bus._listeners


async def test_a_listener_that_sleeps_loses_the_oldest_and_holds_nobody_up(bus: EventBus) -> None:
    listening = bus.follow()
    bus.publish("container", "start", "first")
    assert (await anext(listening)).id == "first"
    limit = BACKLOG_LIMIT + RECENT_LIMIT
    for number in range(limit + 5):
        bus.publish("container", "start", str(number))
    assert (await anext(listening)).id == "5"
    await listening.aclose()  # type: ignore[attr-defined]


def test_only_so_many_are_kept(bus: EventBus) -> None:
    for number in range(RECENT_LIMIT + 1):
        bus.publish("container", "start", str(number))
    assert [bus.recent()[0].id, bus.recent()[-1].id] == ["1", str(RECENT_LIMIT)]
