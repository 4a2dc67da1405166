"""Links without ICC: which elements come with which of the two endpoints."""

from dataclasses import replace

from netagent.model.container import Container, ContainerKind
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import ContainerId
from netagent.model.network import Network
from netagent.model.resolver import Link
from netagent.model.snapshot import Snapshot
from netagent.plan.linking import link_elements
from tests.support.world import LOCALNET, a_host, a_local_network, an_endpoint

APART = replace(a_local_network("10.1.0.0/24", "fd00:1::/64"), icc=False)
ALLOWED = {
    "linked4": {"10.1.0.2 . 10.1.0.3 . tcp . 80-81", "10.1.0.2 . 10.1.0.3 . udp . 53"},
    "linked6": {"fd00:1::2 . fd00:1::3 . tcp . 80-81", "fd00:1::2 . fd00:1::3 . udp . 53"},
}


def one_of(name: str, number: int, state: EndpointState = EndpointState.ATTACHED) -> Endpoint:
    endpoint = an_endpoint(f"10.1.0.{number}", f"fd00:1::{number}", digit=str(number), network=LOCALNET, state=state)
    published = an_endpoint(publish=("4000:81",) if name == "db" else ()).ports
    return replace(endpoint, container_id=ContainerId(str(number) * 64), container_name=name, ports=published)


def linked(*endpoints: Endpoint, network: Network = APART) -> Snapshot:
    containers = {
        endpoint.container_id: Container(
            id=endpoint.container_id,
            name=endpoint.container_name,
            kind=ContainerKind.RUN,
            links=(Link(target="db", alias="store"),) if endpoint.container_name == "web" else (),
            exposed=("80/tcp", "53/udp") if endpoint.container_name == "db" else (),
        )
        for endpoint in endpoints
    }
    here = Endpoints.of(endpoints)
    return Snapshot(host=a_host(1), networks={network.id: network}, endpoints=here, containers=containers)


def test_a_link_is_rendered_with_either_end_and_for_nobody_else() -> None:
    web, db, other = one_of("web", 2), one_of("db", 3), one_of("other", 4)
    snapshot = linked(web, db, other)
    assert link_elements(snapshot, web, APART) == ALLOWED
    assert link_elements(snapshot, db, APART) == ALLOWED
    assert link_elements(snapshot, other, APART) == {}


def test_where_containers_reach_each_other_anyway_a_link_needs_nothing() -> None:
    web, db = one_of("web", 2), one_of("db", 3)
    network = replace(APART, icc=True)
    assert link_elements(linked(web, db, network=network), web, network) == {}


def test_an_end_that_is_not_in_the_kernel_opens_nothing_but_two_that_go_together_take_everything_along() -> None:
    web, gone, asleep = (
        one_of("web", 2, s) for s in (EndpointState.ATTACHED, EndpointState.DETACHING, EndpointState.DORMANT)
    )
    db = one_of("db", 3)
    leaving = one_of("db", 3, EndpointState.DETACHING)
    assert link_elements(linked(gone, db), db, APART) == {}
    assert link_elements(linked(asleep, db), db, APART) == {}
    assert link_elements(linked(web, leaving), web, APART) == {}
    assert link_elements(linked(gone, leaving), leaving, APART) == ALLOWED
    assert link_elements(linked(gone, leaving), gone, APART) == ALLOWED
