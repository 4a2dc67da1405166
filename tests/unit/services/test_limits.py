"""Limits of rates: given with a connection, changed live, kept for the next start."""

import errno

import pytest

from netagent.errors import Conflict, InvalidRequest, KernelRejected, NotFound
from netagent.model.rate import Rate
from netagent.services.requests import Connection, LimitChange, NewConnection, NewContainer
from tests.support.agent import Agent, settled

MBIT = 10**6


@pytest.fixture
async def online(agent: Agent) -> Agent:
    """An agent with two networks; the container ``web`` is on the first."""
    await agent.create_network("app", driver="bridge", subnets=("10.20.0.0/24",))
    await agent.create_network("db", driver="bridge", subnets=("10.21.0.0/24",))
    await agent.attach("web", "app")
    await settled()
    return agent


def rates(agent: Agent) -> dict[str, int]:
    """What the kernel holds, by device prefix in megabits."""
    return {name[:3]: shaper.rate * 8 // MBIT for name, shaper in agent.kernel.shapers.items()}


async def test_a_limit_is_set_changed_and_taken_away_without_a_trace(online: Agent) -> None:
    before = online.picture()
    await online.limits.update(LimitChange(container="web", rate_in="10mbit", rate_out="20mbit"))
    assert rates(online) == {"nae": 10, "nai": 20}
    await online.limits.update(LimitChange(container="web", rate_out="30mbit"))
    assert rates(online) == {"nae": 10, "nai": 30}
    await online.limits.update(LimitChange(container="web", rate_in=""))
    assert rates(online) == {"nai": 30}
    assert not await online.engine.reconcile()
    await online.limits.update(LimitChange(container="web", rate_out=""))
    await settled()
    assert online.picture() == before


async def test_a_limit_that_the_kernel_refuses_is_as_before(online: Agent) -> None:
    await online.limits.update(LimitChange(container="web", rate_in="10mbit"))
    await settled()
    before = online.picture()
    online.kernel.rearm({1: KernelRejected("an operation", errno.ENOENT, "no such qdisc")})
    with pytest.raises(KernelRejected):
        await online.limits.update(LimitChange(container="web", rate_out="20mbit"))
    online.kernel.rearm({})
    await online.engine.reconcile()
    assert online.picture() == before


async def test_each_network_of_a_container_has_its_own_limits(online: Agent) -> None:
    await online.connections.connect(NewConnection(network="db", container="web", rate_in="5mbit"))
    await online.limits.update(LimitChange(container="web", network="app", rate_in="7mbit"))
    rows = {e.interface: e.rate_in for e in online.journal.endpoints.values()}
    assert rows == {"eth0": Rate(bits=7 * MBIT), "eth1": Rate(bits=5 * MBIT)}
    await online.limits.update(LimitChange(container="web", rate_in="9mbit"))
    assert {e.rate_in for e in online.journal.endpoints.values()} == {Rate(bits=9 * MBIT)}


async def test_a_restarted_container_and_a_restarted_agent_keep_limits(agent: Agent) -> None:
    await agent.create_network("app", driver="bridge", subnets=("10.20.0.0/24",))
    connection = Connection(networks=("app",), rate_in="10mbit", rate_out="20mbit")
    await agent.containers.create(NewContainer(name="web", command=("x",), connection=connection))
    await agent.containers.start("web")
    assert rates(agent) == {"nae": 10, "nai": 20}
    await agent.containers.stop("web")
    assert not rates(agent)
    await agent.limits.update(LimitChange(container="web", rate_in="30mbit"))
    await agent.containers.start("web")
    assert rates(agent) == {"nae": 30, "nai": 20}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (LimitChange(container="nope", rate_in="1mbit"), NotFound, "No such container: nope"),
        (LimitChange(container="web", network="nope", rate_in="1mbit"), NotFound, "network nope not found"),
        (LimitChange(container="web", network="db", rate_in="1mbit"), NotFound, "container web is not connected to"),
        (LimitChange(container="web", rate_in="fast"), InvalidRequest, "invalid --rate-in 'fast'"),
        (LimitChange(container="web", rate_out="1bit"), InvalidRequest, "invalid --rate-out 1bit"),
        (LimitChange(container="alone", rate_in="1mbit"), Conflict, "container alone is not connected to any network"),
    ],
)
async def test_what_cannot_be_limited_is_refused_and_nothing_changes(
    online: Agent, change: LimitChange, error: type[Exception], words: str
) -> None:
    await online.containers.create(
        NewContainer(name="alone", command=("x",), connection=Connection(networks=("host",)))
    )
    await settled()
    before = online.picture()
    with pytest.raises(error, match=words):
        await online.limits.update(change)
    await settled()
    assert online.picture() == before
