"""Which ways are asked, how many at a time, and what is made of the answers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from netagent.kernel.fake import FakeKernel
from netagent.model.address import Address, parse_address, parse_prefix
from netagent.model.claims import Claims
from netagent.model.host import Host
from netagent.model.host_index import Hosts
from netagent.model.ids import HostId
from netagent.model.paths import Paths
from netagent.model.persistent_map import PersistentSet
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import Route
from netagent.services.context import Context
from netagent.services.events import EventBus
from netagent.services.probing import FAILURES_TO_BELIEVE, WAYS_AT_ONCE, ProbingService
from tests.support.world import H1, STATICNET, a_block, a_host, an_overlay, two_hosts

HEADERS = 28


class Told:
    """What the service tells the rest of the agent, and what it is told."""

    def __init__(self, peers: int) -> None:
        self.kernel = FakeKernel()
        self.events = EventBus(lambda: "now")
        self.paths = Paths()
        self.path_problems: Mapping[HostId, tuple[str, ...]] = {}
        self.followed = 0
        hosts = [HostId(f"00000000-0000-0000-0000-{number:012}") for number in range(100, 100 + peers)]
        self.targets = {host: parse_address(f"192.168.{number}.0") for number, host in enumerate(hosts, 2)}
        self.base = replace(
            two_hosts(an_overlay()),
            hosts=Hosts.of(replace(a_host(2), id=host, name=f"p{number}") for number, host in enumerate(hosts, 2)),
            live=PersistentSet().updated(hosts),
            claims=Claims.of(
                (a_block("192.168.1.0/24", H1), *(a_block(f"{at}/24", host) for host, at in self.targets.items()))
            ),
        )
        self.kernel.answers = frozenset(self.targets.values())
        self.service = ProbingService(cast("Context", self))

    @property
    def host(self) -> Host:
        return self.base.host

    @property
    def knowledge(self) -> "Told":
        return self

    @property
    def engine(self) -> "Told":
        return self

    def follow_snapshot(self) -> None:
        self.followed += 1

    def snapshot(self) -> Snapshot:
        return self.base

    def asked(self) -> set[Address]:
        found = {target for targets in self.kernel.asked for target in targets}
        self.kernel.asked.clear()
        return found


async def test_each_step_asks_a_few_and_all_have_their_turn() -> None:
    told = Told(peers=40)
    seen: list[set[Address]] = []
    while await told.service.step():
        seen.append(told.asked())
    seen.append(told.asked())
    assert all(len(targets) <= WAYS_AT_ONCE for targets in seen)
    assert len(seen) == 3
    assert set.union(*seen) == set(told.targets.values())


async def test_those_in_order_are_asked_again_the_longest_unasked_first() -> None:
    told = Told(peers=40)
    while await told.service.step():
        pass
    told.asked()
    rounds = [told.asked() for _ in range(5) if not await told.service.step()]
    assert set.union(*rounds[:3]) == set(told.targets.values())
    assert rounds[0] & rounds[1] == set()


async def test_a_way_that_was_in_order_and_is_not_any_more_is_told() -> None:
    told = Told(peers=1)
    (host,) = told.targets
    assert not await told.service.step()
    told.kernel.answers = frozenset()
    for _ in range(FAILURES_TO_BELIEVE):
        assert told.path_problems == {}
        assert await told.service.step()
    assert told.path_problems == {host: ("staticnet: does not answer",)}
    assert told.paths == Paths(), "there is nothing to be done about it here"


@pytest.mark.parametrize("carried", [576, 577, 1000, 1349, 1449])
async def test_the_largest_packet_that_arrives_is_found_and_the_routes_follow_it_up_and_down(carried: int) -> None:
    told = Told(peers=2)
    host, target = next(iter(told.targets.items()))
    told.kernel.carried[target] = carried - HEADERS
    for _ in range(FAILURES_TO_BELIEVE):
        assert await told.service.step()
    assert told.paths.narrow == {(STATICNET, host, 4): carried}
    assert told.path_problems == {host: (f"staticnet: loses packets of 1450 bytes, carries {carried}",)}
    assert told.followed == 1
    del told.kernel.carried[target]
    assert not await told.service.step()
    assert (told.paths.narrow, told.path_problems, told.followed) == ({}, {}, 2)


async def test_a_way_that_carries_less_than_it_must_is_told_and_left_as_it_is() -> None:
    told = Told(peers=1)
    (host,) = told.targets
    told.kernel.carried[told.targets[host]] = 500
    for _ in range(FAILURES_TO_BELIEVE):
        await told.service.step()
    assert told.path_problems == {host: ("staticnet: loses packets of 1450 bytes",)}
    assert told.paths == Paths()


async def test_what_was_found_of_a_peer_goes_with_it() -> None:
    told = Told(peers=1)
    ((_, target),) = told.targets.items()
    told.kernel.carried[target] = 1000
    for _ in range(FAILURES_TO_BELIEVE):
        await told.service.step()
    assert told.paths.narrow
    told.base = replace(told.base, live=PersistentSet())
    assert not await told.service.step()
    assert (len(told.paths.narrow), told.path_problems) == (1, {}), "its agent is gone, not its containers"
    told.base = replace(told.base, claims=Claims())
    assert not await told.service.step()
    assert told.paths.narrow == {}


async def test_limits_that_an_earlier_life_found_stand_until_packets_get_through() -> None:
    told = Told(peers=2)
    host, target = next(iter(told.targets.items()))
    routes = (
        Route(destination=parse_prefix(f"{target}/24"), device="nav", gateway=target, mtu=1000),
        Route(destination=parse_prefix(f"{target}/32"), device="nav", gateway=target),
        Route(destination=parse_prefix("192.168.1.0/24"), device="nav", mtu=900),
    )
    told.kernel.routes.update({("", str(route.destination)): route for route in routes})
    await told.service.recall()
    assert told.paths.narrow == {(STATICNET, host, 4): 1000}
    told.kernel.carried[target] = 1000 - HEADERS
    assert await told.service.step()
    assert told.path_problems == {host: ("staticnet: loses packets of 1450 bytes, carries 1000",)}
    del told.kernel.carried[target]
    assert not await told.service.step()
    assert told.paths.narrow == {}


async def test_checksums_that_arrive_wrong_are_left_to_no_device_any_more_and_that_stays_so() -> None:
    told = Told(peers=2)
    host, target = next(iter(told.targets.items()))
    told.kernel.spoiled = {target}
    for _ in range(FAILURES_TO_BELIEVE):
        assert told.paths == Paths()
        assert await told.service.step()
    assert told.paths == Paths(corrupting=frozenset({STATICNET}))
    assert told.followed == 1
    assert told.path_problems[host] == ("staticnet: checksums left to a network device arrive wrong",)
    told.kernel.spoiled = set()
    assert not await told.service.step()
    assert told.paths.corrupting == {STATICNET}
    own = "staticnet: checksum offload is off: what was left to a network device arrived wrong"
    assert told.path_problems == {H1: (own,)}
    told.base = replace(told.base, networks={}, claims=Claims())
    await told.service.step()
    assert (told.paths, told.path_problems) == (Paths(), {})


async def test_a_way_may_carry_less_and_have_its_checksums_spoiled() -> None:
    told = Told(peers=1)
    ((host, target),) = told.targets.items()
    told.kernel.carried[target] = 1000 - HEADERS
    less = "staticnet: loses packets of 1450 bytes, carries 1000"
    for spoiled in (set(), set(), set(), {target}, {target}, set(), {target}, {target}):
        told.kernel.spoiled = spoiled
        assert await told.service.step()
    assert told.path_problems == {host: (less,)}
    assert not told.paths.corrupting, "twice is chance, on a way that is asked all along"
    await told.service.step()
    assert told.path_problems[host] == (f"{less}, checksums left to a network device arrive wrong",)
    assert told.paths == Paths(narrow={(STATICNET, host, 4): 1000}, corrupting=frozenset({STATICNET}))
    del told.kernel.carried[target]
    await told.service.step()
    assert told.paths.narrow == {}
    assert told.path_problems[host] == ("staticnet: checksums left to a network device arrive wrong",)


async def test_where_no_device_is_netagents_own_wrong_checksums_are_told_alone() -> None:
    told = Told(peers=1)
    (host,) = told.targets
    network = replace(an_overlay(), driver="route")
    told.base = replace(told.base, networks={network.id: network})
    told.kernel.spoiled = set(told.targets.values())
    for _ in range(FAILURES_TO_BELIEVE):
        await told.service.step()
    assert told.path_problems == {host: ("staticnet: checksums left to a network device arrive wrong",)}
    assert told.paths == Paths()
