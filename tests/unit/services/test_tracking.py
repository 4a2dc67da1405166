"""A table of tracked connections that fills is told once, shown as long as it lasts, and told again when it is over."""

from collections.abc import Iterator

import pytest

from netagent.model.counters import TrackedConnections
from netagent.services.hosts import HostService
from netagent.services.tracking import TrackingService
from tests.support.agent import Agent


def told(agent: Agent) -> Iterator[tuple[str, str]]:
    for event in agent.context.events.recent():
        if (event.type, event.action) == ("host", "conntrack"):
            yield event.attributes["result"], event.attributes["count"]


async def test_a_table_that_fills_is_told_once_and_shown_until_it_has_room(agent: Agent) -> None:
    service, hosts = TrackingService(agent.context), HostService(agent.context)
    shown: list[tuple[str, ...]] = []
    for count in (799, 800, 900, 760, 740, 790):
        agent.kernel.tracked = TrackedConnections(count=count, limit=1000)
        await service.look()
        (own,) = (view for view in hosts.list() if view.is_self)
        shown.append(own.problems)
    assert list(told(agent)) == [("filling", "800"), ("has room", "740")]
    said = "connections tracked, new ones are dropped at the limit"
    assert shown == [(), (f"800 of 1000 {said}",), (f"900 of 1000 {said}",), (f"760 of 1000 {said}",), (), ()]


@pytest.mark.parametrize("reading", [None, TrackedConnections(count=7, limit=0)], ids=["no-tracking", "no-limit"])
async def test_where_there_is_no_limit_there_is_no_trouble(agent: Agent, reading: TrackedConnections | None) -> None:
    agent.kernel.tracked = reading
    await TrackingService(agent.context).look()
    assert not list(told(agent))
    assert agent.context.knowledge.host_problems == ()
