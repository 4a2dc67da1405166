"""Limits in the real kernel: rates as measured by iperf3, drift seen, nothing left behind."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from netagent.kernel import netns
from netagent.kernel.kernel import Kernel
from netagent.model.rate import Rate
from netagent.plan.desired import State
from netagent.plan.diff import diff
from netagent.plan.limit import render_limits
from netagent.plan.union import union
from tests.support.eventually import eventually as in_time
from tests.support.netns import Namespace, address, bridge, endpoint, eventually, state
from tests.support.world import an_endpoint

pytestmark = pytest.mark.kernel

WEB = an_endpoint("10.9.0.2", digit="2")
MTU = 1450
SECONDS = 1.0
"""How long is measured at a time."""


def _network() -> State:
    return state(bridge(), addresses=[address("10.9.0.1/16", "nab1")])


def _limited(sandbox: Namespace, rate_in: Rate | None, rate_out: Rate | None) -> State:
    limits = render_limits(replace(WEB, rate_in=rate_in, rate_out=rate_out), "nae2", MTU)
    whole = union((_network(), endpoint(sandbox, 2), limits))
    return replace(whole, ruleset=None)


Window = tuple[float, float]
"""The least and the most bits a second that may have been received: a clock is read a moment before a counter."""


@contextmanager
def _measured(sender: Namespace, receiver: Namespace, target: str, device: str) -> Iterator[Callable[[], Window]]:
    """Yield what measures for ``SECONDS`` what reaches ``device`` of ``receiver`` while iperf3 sends all it can."""

    def window() -> Window:
        begun, before, since = time.monotonic(), received(), time.monotonic()
        time.sleep(SECONDS)
        until, after, ended = time.monotonic(), received(), time.monotonic()
        return (after - before) * 8 / (ended - begun), (after - before) * 8 / (until - since)

    with _running(receiver, "iperf3", "-s", "-1"), _received(receiver, device) as received:
        eventually(lambda: ":5201" in receiver.run("ss", "-tlnH"))
        with _running(sender, "iperf3", "-c", target, "-t", "300"):
            yield window


@contextmanager
def _received(namespace: Namespace, device: str) -> Iterator[Callable[[], int]]:
    """Yield what reads the bytes that a device has received: no program, whose start may take its time."""
    home, there = netns.open_own_namespace(), netns.open_namespace(namespace.path)
    table = netns.call_inside(there, home, lambda: os.open("/proc/thread-self/net/dev", os.O_RDONLY))

    def received() -> int:
        lines = os.pread(table, 1 << 16, 0).decode().splitlines()
        return int(next(line.split()[1] for line in lines if line.split()[0] == f"{device}:"))

    try:
        yield received
    finally:
        os.close(table)
        there.close()
        home.close()


def _keeps_to(rate: Rate, window: Callable[[], Window]) -> None:
    """Never more than ``rate``, but for bursts, and soon all of it: who sends or receives may be held up meanwhile."""

    def is_reached() -> bool:
        least, most = window()
        assert least < 1.25 * rate.bits
        return least == pytest.approx(rate.bits, rel=0.1) == most

    eventually(is_reached)


@contextmanager
def _running(namespace: Namespace, *command: str) -> Iterator[None]:
    process = subprocess.Popen(
        ["nsenter", f"--net={namespace.path}", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("mbit", [10, 400])
async def test_a_container_receives_and_sends_at_its_rates(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace], mbit: int
) -> None:
    inside = sandbox()
    rate_in, rate_out = Rate(bits=mbit * 10**6), Rate(bits=mbit * 500_000)
    plain, limited = _limited(inside, None, None), _limited(inside, rate_in, rate_out)
    await kernel.apply(diff(limited, State()))
    ways = ((host, inside, "10.9.0.2", "eth0", rate_in), (inside, host, "10.9.0.1", "nab1", rate_out))
    for *way, rate in ways:
        with _measured(*way) as window:
            _keeps_to(rate, window)
    await kernel.apply(diff(plain, limited))
    for *way, _ in ways:
        with _measured(*way) as window:
            eventually(lambda window=window: window()[0] > 1.5 * rate_in.bits)


async def test_a_container_with_net_admin_cannot_take_its_limits_away(
    kernel: Kernel, sandbox: Callable[[], Namespace]
) -> None:
    inside = sandbox()
    await kernel.apply(diff(_limited(inside, Rate(bits=10**7), Rate(bits=10**7)), State()))
    assert "tbf" not in inside.run("tc", "qdisc", "show")
    assert "ifb" not in inside.run("ip", "-d", "link")


RATES = {
    "both": (Rate(bits=10**7), Rate(bits=10**6)),
    "in": (Rate(bits=10**9), None),
    "out": (None, Rate(bits=8000)),
    "above-32-bits": (Rate(bits=10**12), Rate(bits=40 * 10**9)),
    "with-a-burst": (Rate(bits=12_345_678, burst=123_457), Rate(bits=10**9, burst=3_333_333)),
}


@pytest.mark.parametrize("rates", RATES.values(), ids=RATES.keys())
async def test_what_was_applied_is_observed_and_goes_without_a_trace(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace], rates: tuple[Rate | None, Rate | None]
) -> None:
    inside = sandbox()
    plain = _limited(inside, None, None)
    await kernel.apply(diff(plain, State()))
    before = host.links().keys(), host.run("tc", "qdisc", "show")
    desired = _limited(inside, *rates)
    await kernel.apply(diff(desired, await kernel.observe(desired)))
    assert not str(diff(desired, await kernel.observe(desired)))
    await kernel.apply(diff(plain, desired))
    await kernel.apply(diff(plain, await kernel.observe(plain)))
    await kernel.drained()
    assert (host.links().keys(), host.run("tc", "qdisc", "show")) == before


DISTURBANCES = {
    "queue-deleted": "tc qdisc del dev nae2 root",
    "queue-replaced": "tc qdisc replace dev nae2 root handle 1: tbf rate 99mbit burst 64kb latency 50ms",
    "rate-changed": "tc qdisc change dev nae2 root handle 6e61: tbf rate 99mbit burst 64kb latency 50ms",
    "outgoing-queue-deleted": "tc qdisc del dev nai222222222222 root",
    "filter-deleted": "tc filter del dev nae2 parent ffff:",
    "ingress-deleted": "tc qdisc del dev nae2 ingress",
    "device-deleted": "ip link del nai222222222222",
}


@pytest.mark.parametrize("command", DISTURBANCES.values(), ids=DISTURBANCES.keys())
async def test_what_others_take_away_is_noticed_and_comes_back(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace], command: str
) -> None:
    inside = sandbox()
    desired = _limited(inside, Rate(bits=10**7), Rate(bits=10**7))
    await kernel.apply(diff(desired, State()))
    noticed: list[float] = []
    async with kernel.watched(lambda: noticed.append(time.monotonic())):
        await kernel.apply(diff(desired, await kernel.observe(desired)))
        assert not noticed
        host.run(*command.split())
        await _until(lambda: bool(noticed))
    plan = diff(desired, await kernel.observe(desired))
    assert plan
    await kernel.apply(plan)
    assert not str(diff(desired, await kernel.observe(desired)))


FOREIGN = (
    "qdisc add dev nae2 root handle 1: tbf rate 99mbit burst 64kb latency 50ms",
    "qdisc add dev nae2 ingress",
    "filter add dev nae2 parent ffff: pref 7 protocol ip u32 match u32 0 0 flowid 1:1",
)


async def test_queues_and_filters_of_others_on_our_links_stay(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace]
) -> None:
    inside = sandbox()
    plain = _limited(inside, None, None)
    await kernel.apply(diff(plain, State()))
    for command in FOREIGN:
        host.run("tc", *command.split())
    assert not str(diff(plain, await kernel.observe(plain)))
    limited = _limited(inside, None, Rate(bits=10**7))
    await kernel.apply(diff(limited, await kernel.observe(limited)))
    await kernel.apply(diff(plain, await kernel.observe(plain)))
    assert "99Mbit" in host.run("tc", "qdisc", "show", "dev", "nae2")
    assert "pref 7" in host.run("tc", "filter", "show", "dev", "nae2", "parent", "ffff:")


async def _until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not predicate():
            await asyncio.sleep(0.01)


def _flood(sender: Namespace, target: str) -> None:
    """Send 200 datagrams at once."""
    text = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.setblocking(False)\n"
    text += "s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)\n"
    sender.run("python3", "-c", f"{text}for _ in range(200): s.sendto(bytes(1400), ('{target}', 9))")


async def test_counters_tell_what_passed_and_what_a_limit_dropped(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace]
) -> None:
    inside = sandbox()
    await kernel.apply(diff(_limited(inside, Rate(bits=8000), Rate(bits=8000)), State()))
    host.ip("link", "add", "foreign0", "type", "bridge")
    assert set(await kernel.counters()) == {"nab1", "nae2", "nai222222222222"}
    before = (await kernel.counters())["nae2"]
    assert host.ping("10.9.0.2")
    _flood(host, "10.9.0.2")
    after = await kernel.counters()
    assert after["nae2"].tx_dropped > 50
    assert after["nae2"].tx_packets - before.tx_packets < 150
    _flood(inside, "10.9.0.1")

    async def is_counted() -> bool:
        last = await kernel.counters()
        return last["nai222222222222"].tx_dropped > 50 and last["nae2"].rx_packets - after["nae2"].rx_packets >= 200

    # A container's packets come in when the kernel finds the time.
    await in_time(is_counted)
