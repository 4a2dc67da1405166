"""What containers get from their network: throughput by TCP and UDP, latency, and what a gigabyte costs in CPU time.

Between two hosts by each driver, by Swarm's overlay, and on one host; beside the same datapath set up by hand, without
rules and with rules for the same checks, and the plain way between the hosts. In turns, so that ratios say what a
side's own part costs. Both ends share this machine's CPUs; ``gre`` is Open vSwitch's userspace datapath, with a plain
way of its own. TCP by one stream is measured in more turns than the rest, in random order, see ``streams``.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from tests.bench import streams
from tests.bench.paths import DRIVERS, SAME_HOST, SWARM, between_hosts, docker, over_ovs
from tests.bench.report import draw_bars, keep, median, missing, p99, say, show
from tests.bench.streams import PORT, gbits, iperf
from tests.bench.way import Way

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
SERVERS = streams.SERVER | {
    # At once whenever there is something to receive: what is lost is then lost on the way.
    UDP_PORT: ("chrt", "--fifo", "1", "iperf3", "--server", f"--port={UDP_PORT}"),
    ECHO_PORT: (sys.executable, str(EXCHANGE), "serve", str(ECHO_PORT)),
}
PROFILED = ("route", "vxlan")
"""Drivers of whose limits docs/performance.md has a profile."""
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
    """Measure and print; ``--rounds`` of everything, ``--turns`` of the drivers' TCP by one stream."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench overlay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--stream", type=int, default=1, metavar="SECONDS", help="of each of those turns")
    parser.add_argument("--seconds", type=int, default=2, help="of everything else")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--paths", nargs="*", default=[*DRIVERS, SWARM, SAME_HOST])
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        ways = _make_ways(stack, options.paths)
        results: Results = {metric: {way.name: [] for way in ways} for metric in METRICS}
        for way in ways:
            streams.serve(stack, way.server, SERVERS)
        for number, way in streams.in_turns(ways, options.turns, options.rounds, options.seed):
            say(f"TCP, turn {number + 1} of {options.turns}: {way.name}")
            _attempt(measure_stream, ways, way, options.stream, results)
        for number in range(options.rounds):
            for way in tuple(ways):
                say(f"turn {number + 1} of {options.rounds}: {way.name}")
                _attempt(measure, ways, way, options.seconds, results)
    report(results, ways, options)


def _attempt(
    work: Callable[[Way, int, Results], None], ways: list[Way], way: Way, seconds: int, results: Results
) -> None:
    """Measure a way; one that cannot be is a line in the report and takes no part any more."""
    try:
        work(way, seconds, results)
    except streams.FAILURES as error:
        missing(f"{way.name}: {' '.join(str(error).split())[:300]}")
        ways.remove(way)


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


def measure_stream(way: Way, seconds: int, results: Results) -> None:
    """Take one turn of one way: TCP by one stream."""
    for metric, value in zip((ONE, CPU), streams.measure_stream(way, seconds), strict=True):
        results[metric][way.name].append(value)


def measure(way: Way, seconds: int, results: Results) -> None:
    """Take one turn of one way: all other metrics."""
    results[MANY][way.name].append(gbits(iperf(way, f"--port={PORT}", f"--time={seconds}", f"--parallel={STREAMS}")))
    results[UDP][way.name].append(_loss_free(way, max(seconds / 4, 0.3)))
    asked = (sys.executable, str(EXCHANGE), "ask", way.target, str(ECHO_PORT), str(seconds / 4))
    trips = json.loads(way.client.host.run(*way.client.inside, *asked, timeout=60).stdout)
    results[UDP_TRIP][way.name] += trips["udp"]
    results[TCP_TRIP][way.name] += trips["tcp"]


def _loss_free(way: Way, seconds: float) -> float:
    """Return the highest rate in Gbit/s that arrives, by halving; what goes at full speed bounds it."""

    def arrives(gbits: float) -> tuple[float, float]:
        count = max(round(gbits * seconds * 1e9 / 8 / DATAGRAM), 10)
        amount = f"--blockcount={count}" if gbits else "--time=1"
        rate = (f"--length={DATAGRAM}", f"--bitrate={gbits * 1e9:.0f}", f"--pacing-timer={PACE_US}")
        total = iperf(way, f"--port={UDP_PORT}", "--udp", amount, *rate)["end"]["sum"]
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


def report(results: Results, ways: Sequence[Way], options: argparse.Namespace) -> None:
    """Print the tables and keep the figures."""
    for metric, unit in METRICS.items():
        _show(metric, unit, results[metric], ways, options)
    for name, title, chosen in (
        ("overlay", "TCP throughput: median", (ONE, MANY)),
        ("overlay-udp", f"UDP throughput with at most {LOSS:.1%} lost: median", (UDP,)),
        ("overlay-latency", "Round trip of 64 bytes: median", (UDP_TRIP, TCP_TRIP)),
        ("overlay-cpu", "CPU time of both ends and the kernel: median", (CPU,)),
    ):
        groups = {metric: {k: median(v) for k, v in results[metric].items() if v} for metric in chosen}
        draw_bars(name, title, METRICS[chosen[0]], groups)
    for way in ways:
        if way.closely and way.by_hand:
            _judge(way, results[ONE])
    kept = {metric: {way: _thinned(samples) for way, samples in each.items()} for metric, each in results.items()}
    keep("overlay", {"units": METRICS, "seed": options.seed, "samples": kept})


def _show(
    metric: str, unit: str, samples: dict[str, list[float]], ways: Sequence[Way], options: argparse.Namespace
) -> None:
    closely, per_packet = metric in (ONE, CPU), metric in (UDP_TRIP, TCP_TRIP)
    spread = "p99" if per_packet else "range"
    rows = []
    for way in ways:
        if not (own := samples[way.name]):
            continue
        shown = f"{p99(own):.1f}" if per_packet else f"{min(own):.2f} to {max(own):.2f}"
        others = (way.plain, way.by_hand, way.checked)
        ratios = [streams.said(samples, way.name, o, closely=closely and way.closely) for o in others]
        rows.append((way.name, *ratios, f"{median(own):.2f}", shown))
    columns = ("", "of plain", "of by hand", "of by hand, checks", f"median {unit}", f"{spread} {unit}")
    if closely:
        note = f"Turns: {options.turns} between hosts by netagent and by hand, {options.rounds} for the others; "
        note += f"in random order, seed {options.seed}. {streams.INTERVAL}"
        show(metric, columns, rows, note=note)
    else:
        show(f"{metric}, turns: {options.rounds}", columns, rows)


def _judge(way: Way, tcp: dict[str, list[float]]) -> None:
    """Put the goals for a driver into the report."""
    profile = "; its profile is under Throughput and latency" if way.group in PROFILED else ""
    streams.judge(way.group, tcp, way.name, way.checked, streams.CHECKS, profile.removeprefix("; "))
    checking = ""
    if tcp.get(way.checked) and tcp.get(way.by_hand):
        checking = f"{streams.CHECKS} it was {streams.ratio(tcp[way.checked], tcp[way.by_hand]):.3g}{profile}"
    streams.judge(way.group, tcp, way.name, way.by_hand, streams.RULE, checking)


def _thinned(samples: Sequence[float], most: int = 1000) -> Sequence[float]:
    """Return at most so many of the sorted samples, evenly spread, if there are many more."""
    if len(samples) <= most:
        return samples
    ordered = sorted(samples)
    return [round(ordered[number * len(ordered) // most], 2) for number in range(most)]
