"""Which network a container's default routes lead through: by priority, then by name, each family for itself."""

from dataclasses import replace

import pytest

from netagent.model.ids import NetworkId
from netagent.model.network import Network
from netagent.plan.ways_out import choose_ways_out
from tests.support.world import a_local_network, an_endpoint


def network(name: str, *prefixes: str, internal: bool = False) -> Network:
    base = a_local_network(*prefixes, name=name)
    return replace(base, id=NetworkId(name.ljust(64, "0")), internal=internal)


ZOO = (network("zoo", "10.1.0.0/24", "fd01::/64"), 0)
ANT = (network("ant", "10.2.0.0/24"), 0)
BEE = (network("bee", "fd03::/64"), 0)
INNER = (network("a-inner", "10.4.0.0/24", "fd04::/64", internal=True), 9)


def first(entry: tuple[Network, int], priority: int) -> tuple[Network, int]:
    return entry[0], priority


@pytest.mark.parametrize(
    ("entries", "four", "six"),
    [
        ([ZOO], "zoo", "zoo"),
        ([ZOO, ANT], "ant", "zoo"),
        ([ZOO, ANT, BEE], "ant", "bee"),
        ([first(ZOO, 1), ANT, BEE], "zoo", "zoo"),
        ([first(ZOO, -1), first(ANT, -2), first(BEE, -2)], "zoo", "zoo"),
        ([INNER, ZOO], "zoo", "zoo"),
        ([INNER], None, None),
        ([BEE], None, "bee"),
        ([], None, None),
    ],
)
def test_the_highest_priority_wins_and_among_equals_the_first_name(
    entries: list[tuple[Network, int]], four: str | None, six: str | None
) -> None:
    chosen = choose(entries)
    assert (chosen[4], chosen[6]) == (four, six)


def test_in_order_the_first_attached_wins_among_equals() -> None:
    assert choose([ZOO, ANT, BEE], in_order=True) == {4: "zoo", 6: "zoo"}
    assert choose([ZOO, first(ANT, 1), BEE], in_order=True) == {4: "ant", 6: "zoo"}


def test_an_endpoint_older_than_its_networks_ipv6_subnet_is_no_way_out_for_ipv6() -> None:
    older = an_endpoint("10.1.0.7", digit="1", network=ZOO[0].id)
    newer = an_endpoint("fd03::7", digit="2", network=BEE[0].id)
    chosen = choose_ways_out([older, replace(newer, gw_priority=-1)], {n.id: n for n in (ZOO[0], BEE[0])})
    assert (chosen[older.id], chosen[newer.id]) == ((4,), (6,))


def choose(entries: list[tuple[Network, int]], *, in_order: bool = False) -> dict[int, str | None]:
    endpoints = [
        replace(
            an_endpoint(*(str(s.prefix[7]) for s in entry.subnets), digit=str(number), network=entry.id),
            gw_priority=priority,
        )
        for number, (entry, priority) in enumerate(entries)
    ]
    chosen = choose_ways_out(endpoints, {entry.id: entry for entry, _ in entries}, in_order=in_order)
    names = {endpoint.id: entry.name for endpoint, (entry, _) in zip(endpoints, entries, strict=True)}
    return {version: next((names[i] for i, given in chosen.items() if version in given), None) for version in (4, 6)}
