"""The engine over a kernel in memory: one path for one endpoint and for everything, and back again."""

import asyncio
import errno
from dataclasses import replace

import pytest

from netagent.errors import KernelRejected, NetagentError, NotFound
from netagent.kernel.fake import FakeKernel
from netagent.model.address import parse_address, parse_prefix
from netagent.model.claims import Claims
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.model.endpoint_index import Endpoints
from netagent.model.network import NetworkState
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import Route
from netagent.plan.names import veth_name
from netagent.plan.operation import AddLink, AddRoute
from netagent.reconcile.engine import Engine
from tests.support.agent import kernel_tables
from tests.support.eventually import eventually
from tests.support.world import H2, a_claim, an_endpoint, an_overlay, two_hosts

ATTACH_STEPS = 5
"""The operations of one attach, as the first test spells them out."""

PASS_STEPS = 23
"""Operations of a pass that builds everything: each of them fails once below."""

REFUSAL = KernelRejected("an operation", errno.ENOBUFS, "no buffer space")


class Host:
    """A kernel, an engine and what the engine is told: h1 of two hosts with an overlay."""

    def __init__(self) -> None:
        self.kernel = Watched()
        self.endpoints = Endpoints()
        self.base = two_hosts(an_overlay(), fixed=(a_claim("192.168.0.2", H2),))
        self.engine = Engine(self.kernel, self.snapshot)

    def snapshot(self) -> Snapshot:
        return self.base.with_endpoints(self.endpoints)

    async def endpoint(self, address: str = "192.168.1.7", digit: str = "e", *publish: str) -> Endpoint:
        """An endpoint with a sandbox of its own, as the journal would have it during an attach."""
        path = f"/run/netns/{digit}"
        if path not in self.kernel.sandboxes:
            await self.kernel.create_sandbox(path)
        inode = self.kernel.sandboxes[path]
        endpoint = replace(
            an_endpoint(address, digit=digit, publish=publish or ("4000:80",), state=EndpointState.ATTACHING),
            sandbox=path,
            sandbox_inode=inode,
        )
        self.endpoints = self.endpoints.put(endpoint)
        return endpoint

    def forget(self, endpoint: Endpoint) -> None:
        self.endpoints = self.endpoints.without(endpoint.id)


class Watched(FakeKernel):
    """Counts how often it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[str] = []
        self.refused_looks = 0

    async def observe(self, desired):  # type: ignore[no-untyped-def]
        if self.refused_looks:
            self.refused_looks -= 1
            raise REFUSAL
        self.looks.append("everything")
        return await super().observe(desired)

    async def observe_endpoint(self, desired):  # type: ignore[no-untyped-def]
        self.looks.append("endpoint")
        return await super().observe_endpoint(desired)


@pytest.fixture
async def host() -> Host:
    """A host whose kernel has the network already, as after the first attach."""
    host = Host()
    await host.engine.reconcile()
    host.kernel.looks.clear()
    host.kernel.applied.clear()
    return host


async def test_an_attach_applies_one_endpoint_without_looking(host: Host) -> None:
    endpoint = await host.endpoint()
    await host.engine.attach(endpoint)
    assert host.kernel.looks == []
    assert [str(operation).split()[:3] for operation in host.kernel.applied] == [
        *[["nft", "add", "element"]] * 4,
        ["link", "add", veth_name(endpoint.id)],
        ["address", "add", "192.168.1.7/16"],
        ["route", "replace", "0.0.0.0/0"],
        ["conntrack", "flush", "ipv4"],
        ["announce", "192.168.1.7", "at"],
    ]


async def test_the_first_attach_to_a_network_brings_the_network_in() -> None:
    host = Host()
    await host.engine.attach(await host.endpoint())
    assert {link.split("a" * 12)[0] for link in host.kernel.links} == {"nab", "nav", "nae" + "e" * 12}


async def test_what_an_attach_makes_is_what_a_pass_over_everything_wants(host: Host) -> None:
    await host.engine.attach(await host.endpoint())
    assert not await host.engine.reconcile()


async def test_an_attach_finishes_what_a_crash_left_half_done(host: Host) -> None:
    endpoint = await host.endpoint()
    await host.engine.attach(endpoint)
    complete = kernel_tables(host.kernel)
    for route in [key for key in host.kernel.routes if key[0] == endpoint.sandbox]:
        del host.kernel.routes[route]
    await host.engine.attach(endpoint)
    assert host.kernel.looks[0] == "endpoint"
    assert kernel_tables(host.kernel) == complete


async def test_a_port_that_still_leads_to_a_dead_endpoint_is_turned_to_the_new_one(host: Host) -> None:
    await host.engine.attach(old := await host.endpoint("192.168.1.7", "d"))
    host.forget(old)
    await host.engine.attach(await host.endpoint("192.168.1.8", "e"))
    assert host.kernel.ruleset is not None
    assert host.kernel.ruleset.elements["publish4"] == {"tcp . 4000 : 192.168.1.8 . 80"}


async def test_an_attach_to_a_network_that_is_not_here_is_refused(host: Host) -> None:
    host.base = replace(host.base, claims=Claims())
    stranger = Engine(host.kernel, host.snapshot)
    endpoint = await host.endpoint()
    host.forget(endpoint)
    with pytest.raises(NotFound, match="network aaaaaaaaaaaa is not on this host"):
        await stranger.attach(endpoint)


@pytest.mark.parametrize("step", range(ATTACH_STEPS))
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EEXIST])
async def test_an_attach_that_fails_at_any_operation_leaves_nothing_and_the_next_succeeds(
    host: Host, step: int, number: int
) -> None:
    before = kernel_tables(host.kernel)
    endpoint = await host.endpoint()
    failures = {step: KernelRejected("an operation", number, "no")}
    if number == errno.EEXIST:
        # Looked at, nothing was there: it is refused again, and only then it is a failure.
        failures[step + 1] = failures[step]
    host.kernel.rearm(failures)
    with pytest.raises(KernelRejected):
        await host.engine.attach(endpoint)
    assert kernel_tables(host.kernel) == before
    await host.engine.attach(endpoint)
    assert not await host.engine.reconcile()
    assert veth_name(endpoint.id) in host.kernel.links


async def test_a_cancelled_attach_leaves_nothing(host: Host) -> None:
    before = kernel_tables(host.kernel)
    host.kernel.rearm({2: asyncio.CancelledError()})  # type: ignore[dict-item]
    with pytest.raises(asyncio.CancelledError):
        await host.engine.attach(await host.endpoint())
    assert kernel_tables(host.kernel) == before


@pytest.mark.parametrize("step", range(PASS_STEPS))
async def test_a_pass_that_fails_at_any_operation_is_completed_by_the_next(step: int) -> None:
    whole = Host()
    await whole.endpoint()
    await whole.engine.reconcile()
    host = Host()
    await host.endpoint()
    host.kernel.rearm({step: REFUSAL})
    with pytest.raises(KernelRejected):
        await host.engine.reconcile()
    assert host.engine.status.error is not None
    await host.engine.reconcile()
    assert host.engine.status.error is None
    assert kernel_tables(host.kernel) == kernel_tables(whole.kernel)


async def test_a_whole_pass_has_the_operations_that_the_test_above_counts_on() -> None:
    host = Host()
    await host.endpoint()
    assert len((await host.engine.reconcile()).operations) == PASS_STEPS


async def test_detaching_twice_is_detaching_once(host: Host) -> None:
    before = kernel_tables(host.kernel)
    endpoint = await host.endpoint()
    await host.engine.attach(endpoint)
    await host.engine.detach([endpoint])
    assert kernel_tables(host.kernel) == before
    await host.engine.detach([endpoint])
    assert kernel_tables(host.kernel) == before


async def test_detaching_from_a_network_that_is_gone_leaves_it_to_the_next_pass(host: Host) -> None:
    endpoint = await host.endpoint()
    await host.engine.attach(endpoint)
    host.base = replace(host.base, networks={})
    host.forget(endpoint)
    await host.engine.detach([endpoint])
    running = asyncio.ensure_future(host.engine.run())
    try:
        await eventually(lambda: _true(not host.kernel.links))
    finally:
        running.cancel()


async def _true(value: bool) -> bool:
    return value


async def test_a_second_pass_finds_nothing_to_do(host: Host) -> None:
    await host.endpoint()
    assert await host.engine.reconcile()
    plan = await host.engine.reconcile()
    assert str(plan) == ""
    assert host.engine.status.operations == 0


async def test_surplus_goes_only_when_everything_was_heard(host: Host) -> None:
    endpoint = await host.endpoint()
    await host.engine.attach(endpoint)
    host.forget(endpoint)
    complete = kernel_tables(host.kernel)
    host.base = replace(host.base, complete=False)
    assert not await host.engine.reconcile()
    assert kernel_tables(host.kernel) == complete
    host.base = replace(host.base, complete=True)
    await host.engine.reconcile()
    assert veth_name(endpoint.id) not in host.kernel.links
    assert host.kernel.ruleset is not None
    assert "publish4" not in host.kernel.ruleset.elements


async def test_additions_do_not_wait_until_everything_was_heard(host: Host) -> None:
    host.base = replace(host.base, complete=False)
    endpoint = await host.endpoint()
    await host.engine.reconcile()
    assert veth_name(endpoint.id) in host.kernel.links


async def test_a_network_whose_record_says_deleting_leaves_the_kernel(host: Host) -> None:
    network = replace(an_overlay(), state=NetworkState.DELETING)
    host.base = replace(host.base, networks={network.id: network})
    await host.engine.reconcile()
    assert not host.kernel.links
    assert not host.kernel.routes


async def test_an_endpoint_whose_namespace_is_gone_is_left_out_and_pruned(host: Host) -> None:
    lost, kept = await host.endpoint("192.168.1.7", "d", "4001:80"), await host.endpoint("192.168.1.8", "e")
    await host.engine.reconcile()
    await host.kernel.delete_sandbox(lost.sandbox)
    await host.engine.reconcile()
    assert veth_name(lost.id) not in host.kernel.links
    assert veth_name(kept.id) in host.kernel.links
    assert host.kernel.ruleset is not None
    assert host.kernel.ruleset.elements["publish4"] == {"tcp . 4000 : 192.168.1.8 . 80"}
    assert not await host.engine.reconcile()


async def test_another_namespace_at_the_same_path_is_not_entered(host: Host) -> None:
    lost = await host.endpoint()
    await host.engine.reconcile()
    await host.kernel.delete_sandbox(lost.sandbox)
    await host.kernel.create_sandbox(lost.sandbox)
    await host.engine.reconcile()
    assert veth_name(lost.id) not in host.kernel.links


async def test_a_namespace_that_lives_without_a_path_is_left_as_it_is(host: Host) -> None:
    endpoint = await host.endpoint()
    await host.engine.reconcile()
    complete = kernel_tables(host.kernel)
    del host.kernel.sandboxes[endpoint.sandbox]
    assert not await host.engine.reconcile()
    assert kernel_tables(host.kernel) == complete


async def test_leaving_a_network_tells_whether_the_kernel_has_let_go_of_it(host: Host) -> None:
    network = an_overlay()
    assert not await host.engine.leave(network.id)
    host.base = replace(host.base, networks={network.id: replace(network, state=NetworkState.DELETING)})
    host.kernel.rearm(dict.fromkeys(range(50), REFUSAL))
    assert not await host.engine.leave(network.id)
    host.kernel.rearm({})
    assert await host.engine.leave(network.id)
    assert not host.kernel.links


async def test_a_deleted_veth_whose_namespace_lives_is_made_again(host: Host) -> None:
    endpoint = await host.endpoint()
    await host.engine.reconcile()
    complete = kernel_tables(host.kernel)
    host.kernel._drop_link(veth_name(endpoint.id))
    await host.engine.reconcile()
    assert kernel_tables(host.kernel) == complete


async def test_what_is_not_ours_stays(host: Host) -> None:
    host.kernel.foreign.add("nae" + "e" * 12)
    with pytest.raises(KernelRejected):
        await host.engine.attach(await host.endpoint())
    assert host.kernel.foreign == {"nae" + "e" * 12}


async def test_drift_is_mended(host: Host) -> None:
    complete = kernel_tables(host.kernel)
    tunnel = "nav" + "a" * 12
    foreign_way = Route(destination=parse_prefix("192.168.2.0/24"), device=tunnel, gateway=parse_address("192.168.9.0"))
    host.kernel.routes["", "192.168.2.0/24"] = foreign_way
    host.kernel.neighbours.clear()
    host.kernel.ruleset = None
    host.kernel.links[tunnel] = replace(host.kernel.links[tunnel], mtu=9000)
    await host.engine.reconcile()
    assert kernel_tables(host.kernel) == complete


async def test_every_full_pass_is_told(host: Host) -> None:
    await host.engine.reconcile()
    assert host.engine.status.passes == 2


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("SETTLE_S", 0.0), ("FIRST_RETRY_S", 0.001), ("LAST_RETRY_S", 0.004)):
        monkeypatch.setattr(f"netagent.reconcile.engine.{name}", seconds)


@pytest.mark.usefixtures("quick")
async def test_a_requested_pass_comes_and_failed_ones_come_again_until_one_succeeds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    host = Host()
    host.kernel.refused_looks = 10  # a pass that fails looks once more for what is in place
    running = asyncio.ensure_future(host.engine.run())
    try:
        host.engine.request()
        await eventually(lambda: _true(host.engine.status.passes == 6), every=0.001)
        assert host.engine.status.error is None
        host.kernel.refused_looks = 2
        host.engine.request()
        await eventually(lambda: _true(host.engine.status.passes == 8), every=0.001)
    finally:
        running.cancel()
    pauses = [record.args[1] for record in caplog.records if "again in" in record.message]  # type: ignore[index]
    assert pauses == [0.002, 0.004, 0.004, 0.004, 0.004, 0.002]


@pytest.mark.parametrize("turns", range(4))
async def test_an_engine_that_was_just_asked_can_be_ended_all_the_same(turns: int) -> None:
    host = Host()
    running = asyncio.ensure_future(host.engine.run())
    for _ in range(3):
        await asyncio.sleep(0)
    host.engine.request()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=30)
    assert done


@pytest.mark.usefixtures("quick")
async def test_a_burst_of_requests_makes_one_pass() -> None:
    host = Host()
    running = asyncio.ensure_future(host.engine.run())
    try:
        for _ in range(10):
            host.engine.request()
        await eventually(lambda: _true(host.engine.status.passes > 0), every=0)
        for _ in range(10):
            await asyncio.sleep(0)
    finally:
        running.cancel()
    assert host.engine.status.passes == 1


@pytest.mark.usefixtures("quick")
async def test_everything_is_compared_without_a_reason_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netagent.reconcile.engine.RESYNC_S", 0.001)
    host = Host()
    running = asyncio.ensure_future(host.engine.run())
    try:
        await eventually(lambda: _true(host.engine.status.passes > 1), every=0.001)
    finally:
        running.cancel()


@pytest.mark.usefixtures("quick")
async def test_a_pass_that_failed_inside_an_attach_comes_again_by_itself() -> None:
    host = Host()
    running = asyncio.ensure_future(host.engine.run())
    await asyncio.sleep(0)
    try:
        host.kernel.rearm({2: REFUSAL})
        with pytest.raises(NetagentError):
            await host.engine.attach(await host.endpoint())
        await eventually(lambda: _true(host.engine.status.error is None), every=0.001)
    finally:
        running.cancel()


async def test_passes_and_attaches_take_turns(host: Host) -> None:
    endpoints = [await host.endpoint(f"192.168.1.{7 + n}", digit, f"{4000 + n}:80") for n, digit in enumerate("cdef")]
    await asyncio.gather(*(host.engine.attach(e) for e in endpoints), host.engine.reconcile())
    assert not await host.engine.reconcile()
    assert sum(isinstance(o, AddLink) for o in host.kernel.applied) == 4
    assert sum(isinstance(o, AddRoute) for o in host.kernel.applied) == 4
