"""The small scope: what other hosts change is applied without a look, and ends where a look at everything ends."""

import asyncio
import errno
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netagent.errors import KernelRejected
from netagent.kernel.fake import FakeKernel
from netagent.model.address import parse_address, parse_prefix
from netagent.model.block import Block, FixedAddress
from netagent.model.claims import Claims
from netagent.model.endpoint_index import Endpoints
from netagent.model.host import Host
from netagent.model.host_index import Hosts
from netagent.model.ids import EndpointId, HostId, NetworkId
from netagent.model.network import Network, Scope
from netagent.model.paths import Paths
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import State
from netagent.plan.scope import changed_peers
from netagent.reconcile import engine as engine_module
from netagent.reconcile.engine import Engine
from tests.support.agent import kernel_tables
from tests.support.eventually import eventually
from tests.support.world import H1, H2, H3, a_block, a_claim, a_host, a_subnet, an_endpoint, an_overlay, two_hosts

REFUSAL = KernelRejected("an operation", errno.ENOBUFS, "no buffer space")


class Watched(FakeKernel):
    """Counts how often it is looked at."""

    looks = 0

    async def observe(self, desired: State) -> State:
        self.looks += 1
        return await super().observe(desired)


class World:
    """A kernel that was brought to ``snapshot``."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.kernel = Watched()
        self.kernel.foreign.add("eth0")
        self.engine = Engine(self.kernel, lambda: self.snapshot)

    async def look(self) -> None:
        await self.engine.reconcile()
        self.kernel.looks = 0
        self.kernel.applied.clear()

    @property
    def plan(self) -> list[str]:
        return [str(operation) for operation in self.kernel.applied]


@pytest.fixture
async def world() -> World:
    world = World(two_hosts(an_overlay()))
    await world.look()
    return world


async def test_a_peers_new_block_is_its_own_operations_and_no_look(world: World) -> None:
    world.snapshot = replace(world.snapshot, claims=world.snapshot.claims.updated([a_block("192.168.9.0/24", H2)]))
    assert await world.engine.follow()
    assert world.kernel.looks == 0
    assert [line.split(" dev ")[0] for line in world.plan] == [
        "nft add element blocks44 { 198.18.0.2 . 1048832 . 49320 . 9 }",
        f"neighbour replace 192.168.9.0 lladdr {next(iter(world.kernel.neighbours.values())).mac}",
        "route replace 192.168.9.0/24 via 192.168.9.0",
    ]


async def test_a_peer_that_goes_takes_its_part_with_it_and_nothing_else(world: World) -> None:
    before = kernel_tables(world.kernel)
    base = world.snapshot
    world.snapshot = replace(
        base, hosts=base.hosts.updated([a_host(3)]), claims=base.claims.updated([a_block("192.168.3.0/24", H3)])
    )
    assert await world.engine.follow()
    assert kernel_tables(world.kernel) != before
    world.snapshot = base
    assert await world.engine.follow()
    assert kernel_tables(world.kernel) == before
    assert world.kernel.looks == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, host=replace(s.host, mtu=1400)),
        lambda s: replace(s, claims=s.claims.updated([a_block("192.168.9.0/24", H1)])),
        lambda s: replace(s, claims=s.claims.updated([a_claim("192.168.0.2", H1)])),
        lambda s: replace(s, hosts=s.hosts.updated([replace(s.hosts[H2], mtu=1400)])),
        lambda s: replace(s, networks={n.id: replace(n, internal=True) for n in s.networks.values()}),
        lambda s: replace(s, complete=False),
        lambda s: replace(s, contested={(EndpointId("e" * 64), parse_address("192.168.1.7")): H2}),
    ],
    ids=["own-host", "own-block", "own-claim", "smaller-mtu", "network", "incomplete", "contested"],
)
async def test_what_concerns_more_than_peers_is_left_to_a_look_at_everything(world: World, change) -> None:  # type: ignore[no-untyped-def]
    world.snapshot = change(world.snapshot)
    assert not await world.engine.follow()
    assert world.plan == []


async def test_nothing_is_followed_while_the_kernel_is_in_doubt(world: World) -> None:
    world.engine.request()
    assert not await world.engine.follow()
    await world.look()
    assert await world.engine.follow()


async def test_a_refusal_half_way_is_mended_by_a_look_at_everything(world: World) -> None:
    world.snapshot = replace(world.snapshot, claims=world.snapshot.claims.updated([a_block("192.168.9.0/24", H2)]))
    world.kernel.rearm({1: REFUSAL})
    assert not await world.engine.follow()
    assert not await world.engine.follow(), "what the kernel holds is not known"
    world.kernel.rearm({})
    await world.look()
    assert kernel_tables(world.kernel) == await tables_of(world.snapshot)


async def test_what_an_attach_made_stays_when_peers_change(world: World) -> None:
    path = "/run/netns/web"
    await world.kernel.create_sandbox(path)
    endpoint = replace(an_endpoint("192.168.1.7"), sandbox=path, sandbox_inode=world.kernel.sandboxes[path])
    world.snapshot = world.snapshot.with_endpoints(Endpoints.of([endpoint]))
    await world.engine.attach(endpoint)
    base = world.snapshot
    world.snapshot = replace(base, claims=base.claims.updated([a_block("192.168.9.0/24", H2)]))
    assert await world.engine.follow()
    assert not await world.engine.reconcile()


async def test_everything_is_compared_now_and_then_however_often_peers_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RESYNC_S", 0.1)
    monkeypatch.setattr(engine_module, "SETTLE_S", 0.0)
    running = asyncio.create_task(world.engine.run())
    try:
        deadline = asyncio.get_running_loop().time() + 30
        while not world.kernel.looks and asyncio.get_running_loop().time() < deadline:
            world.engine.follow_snapshot()
            await asyncio.sleep(0.001)
        assert world.kernel.looks
    finally:
        running.cancel()


async def test_the_loop_follows_the_snapshot_without_a_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SETTLE_S", 0.0)
    running = asyncio.create_task(world.engine.run())
    try:
        world.snapshot = replace(world.snapshot, claims=world.snapshot.claims.updated([a_block("192.168.9.0/24", H2)]))
        world.engine.follow_snapshot()
        await eventually(lambda: _true(bool(world.plan)), every=0.001)
        assert world.kernel.looks == 0
    finally:
        running.cancel()


async def _true(value: bool) -> bool:
    return value


async def tables_of(snapshot: Snapshot) -> tuple[object, ...]:
    """Return what a kernel holds that was empty before."""
    fresh = World(snapshot)
    await fresh.look()
    return kernel_tables(fresh.kernel)


NETWORKS = tuple(
    Network(
        id=NetworkId(digit * 64),
        name=f"n{digit}",
        driver=driver,
        scope=Scope.GLOBAL,
        subnets=(a_subnet(f"10.{number}.0.0/20", block_length=24), a_subnet(f"fd00:{number}::/64", block_length=72)),
        vni=4000 + number,
        **options,  # type: ignore[arg-type]
    )
    for number, (digit, driver, options) in enumerate(
        [
            ("a", "vxlan", {}),
            ("b", "vxlan", {"direct_routing": True}),
            ("c", "route", {"fallback": "vxlan"}),
            ("d", "gre", {"backend": "kernel"}),
            ("e", "gre", {"backend": "kernel"}),
            ("f", "vxlan", {"underlay": 6}),
        ]
    )
)
PEERS = [HostId(f"00000000-0000-0000-0000-0000000000{n:02}") for n in range(10, 15)]


def own_host() -> Host:
    return replace(
        a_host(1),
        underlay=(parse_address("198.18.0.1"), parse_address("fd00:18::1")),
        on_link=(parse_prefix("198.18.0.0/24"), parse_prefix("fd00:18::/64")),
        features=frozenset({"gre"}),
    )


@st.composite
def peers(draw: st.DrawFn) -> Host:
    """A host on the segment or behind a router; two may say that they have the same address."""
    last, third = draw(st.integers(2, 4)), draw(st.integers(0, 1))
    return replace(
        own_host(),
        id=draw(st.sampled_from(PEERS)),
        name="peer",
        underlay=(parse_address(f"198.18.{third}.{last}"), parse_address(f"fd00:18::{last}"))[
            : draw(st.integers(0, 2))
        ],
        mtu=draw(st.sampled_from([1500, 1500, 1500, 9000, 1400])),
    )


def blocks() -> st.SearchStrategy[tuple[tuple[object, ...], Block | None]]:
    """A block of one of the networks, by version and number, and who has it, if anybody."""

    def place(
        network: Network, version: int, number: int, owner: HostId | None, own: bool
    ) -> tuple[tuple[object, ...], Block | None]:
        subnet = next(s for s in network.subnets if s.prefix.version == version)
        prefix = subnet.block_around(
            subnet.prefix[0] + number * (1 << (subnet.prefix.max_prefixlen - subnet.block_length))
        )
        key = (network.id, prefix)
        if owner is None:
            return key, None
        return key, Block(
            network_id=network.id, prefix=prefix, owner=owner, epoch=1, own_address=prefix[0] if own else None
        )

    return st.builds(
        place,
        st.sampled_from(NETWORKS),
        st.sampled_from([4, 6]),
        st.integers(1, 8),
        st.sampled_from([*PEERS, None]),
        st.sampled_from([True, True, True, False]),
    )


def claims() -> st.SearchStrategy[tuple[tuple[object, ...], FixedAddress | None]]:
    """A fixed address, mostly outside of blocks, and who has it, if anybody."""

    def place(network: Network, offset: int, owner: HostId | None) -> tuple[tuple[object, ...], FixedAddress | None]:
        address = network.subnets[0].prefix[offset]
        claim = (
            None
            if owner is None
            else FixedAddress(
                network_id=network.id, address=address, owner=owner, epoch=1, endpoint_id=EndpointId("9" * 64)
            )
        )
        return (network.id, address), claim

    return st.builds(
        place, st.sampled_from(NETWORKS), st.sampled_from([2, 3, 300, 600]), st.sampled_from([*PEERS, H1, None])
    )


CHANGES = st.lists(
    st.lists(st.one_of(peers(), blocks(), claims(), st.sampled_from(PEERS)), min_size=1, max_size=8), max_size=8
)


def snapshots(steps: list[list[object]]) -> Iterator[Snapshot]:
    """Yield what host 1, which is in every network, knows after each step."""
    hosts = {
        peer: replace(own_host(), id=peer, name="peer", underlay=(parse_address(f"198.18.0.{2 + index // 2}"),))
        for index, peer in enumerate(PEERS)
    }
    held: dict[object, Block] = {
        (network.id, (prefix := subnet.block_around(subnet.prefix[-1]))): Block(
            network_id=network.id, prefix=prefix, owner=H1, epoch=1, own_address=prefix[0]
        )
        for network in NETWORKS
        for subnet in network.subnets
    }
    for network, (index, peer) in product(NETWORKS, enumerate(PEERS)):
        subnet = network.subnets[0]
        prefix = subnet.block_around(subnet.prefix[256 * (index + 1)])
        held[network.id, prefix] = Block(
            network_id=network.id, prefix=prefix, owner=peer, epoch=1, own_address=prefix[0]
        )
    fixed: dict[object, FixedAddress] = {}
    narrow: dict[tuple[NetworkId, HostId, int], int] = {}
    for step in [[], *steps]:
        for change in step:
            match change:
                case Host():
                    hosts[change.id] = change
                case str():
                    hosts.pop(HostId(change), None)
                case (key, Block() as block):
                    held[key] = block
                case (key, FixedAddress() as claim):
                    fixed[key] = claim
                case (way, int() as mtu):
                    narrow[way] = mtu
                case (key, None):
                    held.pop(key, None)
                    fixed.pop(key, None)
        yield Snapshot(
            host=own_host(),
            networks={network.id: network for network in NETWORKS},
            hosts=Hosts.of(hosts.values()),
            claims=Claims.of((*held.values(), *fixed.values())),
            paths=Paths(narrow={way: mtu for way, mtu in narrow.items() if mtu}),
        )


@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_following_ends_where_a_look_at_everything_ends(steps: list[list[object]]) -> None:
    async def walk() -> None:
        world: World | None = None
        for snapshot in snapshots(steps):
            if world is None:
                world = World(snapshot)
                await world.look()
            world.snapshot = snapshot
            if not await world.engine.follow():
                await world.engine.reconcile()
            assert kernel_tables(world.kernel) == await tables_of(snapshot)

    asyncio.run(walk())


async def test_what_two_peers_share_stays_until_both_are_gone(world: World) -> None:
    """Two hosts with one underlay address are refused as they come; their records may be there all the same."""
    base = world.snapshot
    twin = replace(a_host(3), underlay=a_host(2).underlay)
    world.snapshot = replace(
        base, hosts=base.hosts.updated([twin]), claims=base.claims.updated([a_block("192.168.3.0/24", H3)])
    )
    assert await world.engine.follow()
    world.snapshot = base
    assert await world.engine.follow()
    assert kernel_tables(world.kernel) == await tables_of(base)


async def test_a_claim_in_a_block_counts_again_when_the_block_is_gone(world: World) -> None:
    base = replace(world.snapshot, claims=world.snapshot.claims.updated([a_claim("192.168.9.7", H2)]))
    hosts = base.hosts.updated([a_host(3)])
    for snapshot in (
        base,
        replace(base, hosts=hosts, claims=base.claims.updated([a_block("192.168.9.0/24", H3)])),
        base,
    ):
        world.snapshot = snapshot
        assert await world.engine.follow()
        assert kernel_tables(world.kernel) == await tables_of(snapshot)


def test_changes_of_peers_are_followed_each_by_itself() -> None:
    """Without this the property above could hold because nothing is."""
    (first,) = snapshots([])
    peer = first.hosts[PEERS[0]]
    moved = replace(first, hosts=first.hosts.updated([replace(peer, underlay=(parse_address("198.18.0.99"),))]))
    assert changed_peers(first, first) == frozenset()
    assert changed_peers(first, moved) == {PEERS[0], PEERS[1]}, "PEERS[1] had the same address"
    block = Block(
        network_id=NETWORKS[3].id, prefix=parse_prefix("10.3.9.0/24"), owner=PEERS[4], epoch=1, own_address=None
    )
    assert changed_peers(first, replace(first, claims=first.claims.updated([block]))) == {PEERS[4]}
