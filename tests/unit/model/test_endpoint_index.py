"""The index of a host's endpoints: whatever is put and taken away, it is that of what is left."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from netagent.model.endpoint import Endpoint
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import ContainerId, EndpointId, NetworkId
from tests.support.world import an_endpoint

A_FEW = st.integers(0, 3)


def some(identity: int, network: int, container: int) -> Endpoint:
    return replace(
        an_endpoint("192.168.1.7"),
        id=EndpointId(f"e{identity}"),
        network_id=NetworkId(f"n{network}"),
        container_id=ContainerId(f"c{container}"),
    )


CHANGES = st.lists(st.one_of(st.builds(some, A_FEW, A_FEW, A_FEW), A_FEW.map(lambda i: EndpointId(f"e{i}"))))


@given(changes=CHANGES)
def test_changes_one_by_one_lead_to_the_index_of_all_that_is_left(changes: list[Endpoint | EndpointId]) -> None:
    rows: dict[EndpointId, Endpoint] = {}
    index = Endpoints()
    for change in changes:
        before, was = index, dict(index)
        if isinstance(change, Endpoint):
            rows[change.id] = change
            index = index.put(change)
        else:
            rows.pop(change, None)
            index = index.without(change)
        assert before == was
        assert index == rows
        assert set(index.values()) == set(Endpoints.of(rows.values()).values())
        assert index.networks == {e.network_id for e in rows.values()}
        for network in (NetworkId(f"n{number}") for number in range(4)):
            assert set(index.in_network(network)) == {e for e in rows.values() if e.network_id == network}
        for container in (ContainerId(f"c{number}") for number in range(4)):
            assert set(index.of_container(container)) == {e for e in rows.values() if e.container_id == container}


def test_an_endpoint_that_changes_keeps_its_place_among_the_others() -> None:
    first, second = some(1, 0, 0), some(2, 0, 0)
    index = Endpoints.of([first, second]).put(replace(first, container_name="other"))
    assert [e.id for e in index.in_network(first.network_id)] == [e.id for e in index.of_container(first.container_id)]
    assert list(index) == [first.id, second.id]
