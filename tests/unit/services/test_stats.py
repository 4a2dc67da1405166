import pytest

from netagent.errors import InvalidRequest, NotFound
from netagent.model.counters import Counters
from netagent.plan.limit import ifb_name
from netagent.plan.names import veth_name
from netagent.services.requests import LimitChange, NewConnection
from tests.support.agent import Agent, settled

HOST_SIDE = Counters(rx_bytes=10, rx_packets=1, rx_dropped=2, tx_bytes=300, tx_packets=3, tx_dropped=4)
INSIDE = Counters(rx_bytes=300, rx_packets=3, rx_dropped=4, tx_bytes=10, tx_packets=1, tx_dropped=2)


@pytest.fixture
async def online(agent: Agent) -> Agent:
    """An agent with the containers ``web`` and ``db`` on one network, ``web`` on a second one too."""
    await agent.create_network("app", driver="bridge", subnets=("10.20.0.0/24",))
    await agent.create_network("wide", driver="vxlan", subnets=("192.168.0.0/16",))
    for name in ("web", "db"):
        endpoint = await agent.attach(name, "app")
        agent.kernel.counted[veth_name(endpoint.id)] = HOST_SIDE
    await agent.connections.connect(NewConnection(network="wide", container="web"))
    await settled()
    return agent


async def test_a_container_sees_the_other_end_of_the_hosts_counters(online: Agent) -> None:
    (one, two) = await online.stats.containers(("web",))
    assert (one.endpoint.interface, one.counters) == ("eth0", INSIDE)
    assert two.network is not None
    assert (two.network.name, two.counters) == ("wide", Counters())
    assert [s.container.name for s in await online.stats.containers(())] == ["db", "web", "web"]


async def test_what_a_limit_drops_of_what_a_container_sends_is_counted(online: Agent) -> None:
    await online.limits.update(LimitChange(container="db", rate_out="1mbit"))
    (stats,) = await online.stats.containers(("db",))
    online.kernel.counted[ifb_name(stats.endpoint.id)] = Counters(rx_dropped=1, tx_dropped=40, tx_bytes=10)
    (stats,) = await online.stats.containers(("db",))
    assert stats.counters == INSIDE + Counters(tx_dropped=40)


async def test_a_network_has_the_sum_of_its_containers_and_its_tunnel(online: Agent) -> None:
    by_name = {stats.network.name: stats for stats in await online.stats.networks(())}
    assert (by_name["app"].containers, by_name["app"].counters) == (2, INSIDE + INSIDE)
    assert by_name["app"].tunnel is None
    assert by_name["wide"].tunnel == Counters()
    assert "host" not in by_name


async def test_what_is_not_there_is_refused_by_name(online: Agent) -> None:
    with pytest.raises(NotFound, match="No such container: nope"):
        await online.stats.containers(("web", "nope"))
    with pytest.raises(NotFound, match="network nope not found"):
        await online.stats.networks(("nope",))
    with pytest.raises(InvalidRequest, match="network host gives no interface"):
        await online.stats.networks(("host",))
