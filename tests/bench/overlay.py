"""What containers get from their network: throughput by TCP and UDP, latency, and what a gigabyte costs in CPU time.

Between two hosts by each driver, by Swarm's overlay, and on one host; beside the same datapath set up by hand, without
rules and with rules for the same checks, and the plain way between the hosts. In turns, so that ratios say what a
side's own part costs. Both ends share this machine's CPUs; ``gre`` is Open vSwitch's userspace datapath, with a plain
way of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from tests.bench.paths import DRIVERS, SAME_HOST, SWARM, End, Way, between_hosts, docker, over_ovs
from tests.bench.report import draw_bars, goal, keep, median, missing, p99, say, show
from tests.support.lab import eventually

PORT = 5201
ECHO_PORT = 5202
UDP_PORT = 5203
EXCHANGE = Path(__file__).with_name("exchange.py")
STREAMS = 8
DATAGRAM = 1350
"""Bytes: fits into all ways' MTU, so that each carries as many packets."""
LOSS = 0.001
"""Of all datagrams, what may be lost of a rate that is called free of loss: both ends share two CPUs."""
PACE_US = 100
"""Between two bursts of datagrams; by default there is one in a millisecond, which is more than a socket holds."""
STEPS = 4
"""By which the rate without loss is searched for, each with half of what is left."""
OF_BY_HAND = 0.97
LIMITS = "the firewall's checks of each packet, see the profile under Throughput and latency"
METRICS = {
    "TCP, one stream": "Gbit/s",
    f"TCP, {STREAMS} streams": "Gbit/s",
    f"UDP, at most {LOSS:.1%} lost": "Gbit/s",
    "CPU time a gigabyte, one stream": "s",
    "UDP round trip": "us",
    "TCP round trip": "us",
}
ONE, MANY, UDP, CPU, UDP_TRIP, TCP_TRIP = METRICS
Results = dict[str, dict[str, list[float]]]


def main(arguments: list[str]) -> None:
    """Measure and print; ``--rounds`` turns, ``--seconds`` of each stream."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench overlay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--paths", nargs="*", default=[*DRIVERS, SWARM, SAME_HOST])
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        ways = _make_ways(stack, options.paths)
        results: Results = {metric: {way.name: [] for way in ways} for metric in METRICS}
        for way in ways:
            _serve(stack, way.server)
        for number in range(options.rounds):
            for way in tuple(ways):
                say(f"turn {number + 1} of {options.rounds}: {way.name}")
                try:
                    measure(way, options.seconds, results)
                except (subprocess.SubprocessError, ValueError, KeyError, AssertionError, ArithmeticError) as error:
                    missing(f"{way.name}: {' '.join(str(error).split())[:300]}")
                    ways.remove(way)
    report(results, ways, options.rounds)


def _make_ways(stack: ExitStack, paths: Sequence[str]) -> list[Way]:
    """Make the labs; one that cannot be made is a line in the report."""
    same = SAME_HOST in paths
    drivers = [path for path in ("route", "vxlan") if path in paths]
    labs: list[tuple[str, AbstractContextManager[list[Way]]]] = []
    if drivers or same:
        labs.append(("netagent", between_hosts(drivers, same_host=same)))
    if "gre" in paths:
        labs.append(("gre", over_ovs()))
    if SWARM in paths:
        labs.append((SWARM, docker(same_host=same)))
    ways: list[Way] = []
    for name, lab in labs:
        say(f"{name}: making the lab")
        try:
            ways += stack.enter_context(lab)
        except Exception as error:
            missing(f"{name}: {' '.join(str(error).split())[:300]}")
    return ways


def _serve(stack: ExitStack, end: End) -> None:
    """Start what answers at an end."""
    for command in (
        ("iperf3", "--server", f"--port={PORT}"),
        # At once whenever there is something to receive: what is lost is then lost on the way.
        ("chrt", "--fifo", "1", "iperf3", "--server", f"--port={UDP_PORT}"),
        (sys.executable, str(EXCHANGE), "serve", str(ECHO_PORT)),
    ):
        server = end.host.popen(*end.inside, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)

    def listening() -> bool:
        shown = end.host.run(*end.inside, "ss", "-tlnH").stdout
        return all(f":{port} " in shown for port in (PORT, ECHO_PORT, UDP_PORT))

    eventually(listening)


def measure(way: Way, seconds: int, results: Results) -> None:
    """Take one turn of one way: all metrics."""
    before, begun = _busy_seconds(), time.perf_counter()
    sent = _iperf(way, f"--port={PORT}", f"--time={seconds}")
    spent, took = _busy_seconds() - before, time.perf_counter() - begun
    results[ONE][way.name].append(_gbits(sent))
    results[CPU][way.name].append(
        min(spent, took * (os.cpu_count() or 1)) / (sent["end"]["sum_received"]["bytes"] / 1e9)
    )
    results[MANY][way.name].append(_gbits(_iperf(way, f"--port={PORT}", f"--time={seconds}", f"--parallel={STREAMS}")))
    results[UDP][way.name].append(_loss_free(way, max(seconds / 4, 0.3)))
    asked = (sys.executable, str(EXCHANGE), "ask", way.target, str(ECHO_PORT), str(seconds / 4))
    trips = json.loads(way.client.host.run(*way.client.inside, *asked, timeout=60).stdout)
    results[UDP_TRIP][way.name] += trips["udp"]
    results[TCP_TRIP][way.name] += trips["tcp"]


def _gbits(answer: dict[str, Any]) -> float:
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def _iperf(way: Way, *options: str) -> dict[str, Any]:
    command = ("iperf3", "--client", way.target, "--json", *options)
    said = way.client.host.run(*way.client.inside, *command, timeout=30, check=False)
    answer: dict[str, Any] = json.loads(said.stdout)
    if "error" in answer:
        raise ValueError(f"iperf3: {answer['error']}")
    return answer


def _loss_free(way: Way, seconds: float) -> float:
    """Return the highest rate in Gbit/s that arrives, by halving; what goes at full speed bounds it."""

    def arrives(gbits: float) -> tuple[float, float]:
        count = max(round(gbits * seconds * 1e9 / 8 / DATAGRAM), 10)
        amount = f"--blockcount={count}" if gbits else "--time=1"
        rate = (f"--length={DATAGRAM}", f"--bitrate={gbits * 1e9:.0f}", f"--pacing-timer={PACE_US}")
        total = _iperf(way, f"--port={UDP_PORT}", "--udp", amount, *rate)["end"]["sum"]
        sent = total["packets"] * DATAGRAM * 8 / total["seconds"] / 1e9
        return sent, total["lost_packets"] / max(total["packets"], 1)

    high, lost = arrives(0)
    if lost <= LOSS:
        return high
    low, high = 0.0, high * (1 - lost) * 1.1
    for _ in range(STEPS):
        rate = (low + high) / 2
        sent, lost = arrives(rate)
        low, high = (max(low, min(sent, rate)), high) if lost <= LOSS else (low, rate)
    return low


def _busy_seconds() -> float:
    """Return the CPU time of this machine, interrupts and all, that was not idle (/proc/stat, proc(5))."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = fields
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def report(results: Results, ways: Sequence[Way], rounds: int) -> None:
    """Print the tables and keep the figures."""
    for metric, unit in METRICS.items():
        per_packet = metric in (UDP_TRIP, TCP_TRIP)
        spread = "p99" if per_packet else "range"
        rows = []
        for way in ways:
            if not (samples := results[metric][way.name]):
                continue
            shown = f"{p99(samples):.1f}" if per_packet else f"{min(samples):.2f} to {max(samples):.2f}"
            others = (way.plain, way.by_hand, way.checked)
            ratios = [_ratio(results[metric], way.name, other) for other in others]
            rows.append((way.name, *ratios, f"{median(samples):.2f}", shown))
        columns = ("", "of plain", "of by hand", "of by hand, checks", f"median {unit}", f"{spread} {unit}")
        show(f"{metric}, turns: {rounds}", columns, rows)
    for name, title, chosen in (
        ("overlay", "TCP throughput: median", (ONE, MANY)),
        ("overlay-udp", f"UDP throughput with at most {LOSS:.1%} lost: median", (UDP,)),
        ("overlay-latency", "Round trip of 64 bytes: median", (UDP_TRIP, TCP_TRIP)),
        ("overlay-cpu", "CPU time of both ends and the kernel: median", (CPU,)),
    ):
        groups = {metric: {k: median(v) for k, v in results[metric].items() if v} for metric in chosen}
        draw_bars(name, title, METRICS[chosen[0]], groups)
    tcp = results[ONE]
    for way in ways:
        if not way.name.startswith("netagent ") or not tcp[way.name]:
            continue
        driver = way.by_hand.partition(" ")[0]
        for other, what in (
            (way.checked, "by hand with the same checks"),
            (way.by_hand, "by hand with a masquerading rule alone"),
        ):
            if tcp.get(other):
                ratio = median(tcp[way.name]) / median(tcp[other])
                text = f"TCP by {driver}, ratio to {what}"
                goal(text, ratio, OF_BY_HAND, least=True, limited_by=LIMITS)
    kept = {metric: {way: _thinned(samples) for way, samples in each.items()} for metric, each in results.items()}
    keep("overlay", {"units": METRICS, "samples": kept})


def _ratio(samples: dict[str, list[float]], way: str, other: str) -> str:
    compared = samples.get(other)
    # A search for a rate without loss may end at none.
    return f"{median(samples[way]) / median(compared):.2f}" if compared and median(compared) else ""


def _thinned(samples: Sequence[float], most: int = 1000) -> Sequence[float]:
    """Return at most so many of the sorted samples, evenly spread, if there are many more."""
    if len(samples) <= most:
        return samples
    ordered = sorted(samples)
    return [round(ordered[number * len(ordered) // most], 2) for number in range(most)]
