"""Which of a container's networks its answers leave by."""

from dataclasses import replace

from netagent.model.endpoint import Endpoint
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import NetworkId
from netagent.model.snapshot import Snapshot
from netagent.plan.answering import source_routes
from tests.support.world import LOCALNET, a_host, a_local_network, an_endpoint

USUAL = a_local_network("10.2.0.0/24", "fd00:2::/64", name="usual")
ASIDE = replace(a_local_network("10.1.0.0/24", name="aside"), id=NetworkId("d" * 64))
FIRST = replace(an_endpoint("10.2.0.2", "fd00:2::2", digit="1", network=LOCALNET), ways_out=(4, 6))
SECOND = replace(an_endpoint("10.1.0.2", digit="2", network=ASIDE.id), interface="eth1", ways_out=())


def routes(endpoint: Endpoint, *endpoints: Endpoint) -> list[str]:
    snapshot = Snapshot(
        host=a_host(1),
        networks={network.id: network for network in (USUAL, ASIDE)},
        endpoints=Endpoints.of(endpoints),
    )
    return [str(route) for route in source_routes(snapshot, endpoint, snapshot.networks[endpoint.network_id])]


def test_a_container_in_one_network_needs_no_rule() -> None:
    assert routes(FIRST, FIRST) == []


def test_a_network_beside_the_default_one_answers_everybody_and_the_default_one_those_in_the_other() -> None:
    assert routes(SECOND, FIRST, SECOND) == [
        "from 10.1.0.2 table 2237962 via 10.1.0.1 dev eth1 in /run/netns/web",
    ]
    assert routes(FIRST, FIRST, SECOND) == [
        "from 10.2.0.2 to 10.1.0.0/24 table 1119481 via 10.2.0.1 dev eth0 in /run/netns/web",
    ]


def test_what_is_inside_a_sandbox_that_is_not_ours_is_left_alone() -> None:
    assert routes(replace(SECOND, sandbox=""), FIRST, replace(SECOND, sandbox="")) == []
