"""TCP by one stream, in many turns: what there are goals for.

Both ends share this machine's CPUs, so that single figures differ by a tenth, through Open vSwitch by half. Ways that
are compared with each other are measured right after one another, in another random order in every turn, and what is
judged is the ratio of their medians.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.report import goal, median
from tests.bench.way import End, Way
from tests.support.lab import eventually

PORT = 5201
SERVER = {PORT: ("iperf3", "--server", f"--port={PORT}")}
"""What answers at an end, by its port."""
OF_BY_HAND = 0.97
CHECKS, RULE = "by hand with the same checks", "by hand with a masquerading rule alone"
SURE = 0.95
INTERVAL = f"In parentheses: where {SURE:.0%} of the ratios lie if as many turns are drawn anew from those taken."
_DRAWS = 2000
_FEWEST = 5
"""Turns that something can be drawn from."""
FAILURES = (subprocess.SubprocessError, ValueError, KeyError, AssertionError, ArithmeticError)
"""What a way that cannot be measured fails with."""


def serve(stack: ExitStack, end: End, servers: Mapping[int, Sequence[str]] = SERVER) -> None:
    """Start what answers at an end, and wait until it listens."""
    for command in servers.values():
        server = end.host.popen(*end.inside, *command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)

    def listening() -> bool:
        shown = end.host.run(*end.inside, "ss", "-tlnH").stdout
        return all(f":{port} " in shown for port in servers)

    eventually(listening)


def in_turns(ways: Sequence[Way], turns: int, fewer: int, seed: int) -> Iterator[tuple[int, Way]]:
    """Yield turn by turn the ways that are left in ``ways``, those of a group right after one another.

    The order of groups, and within each, is random by ``seed``. Ways that are not measured closely take part in the
    first ``fewer`` turns.
    """
    chance = random.Random(seed)
    for turn in range(max(turns, fewer)):
        groups: dict[str, list[Way]] = {}
        for way in ways:
            if turn < (turns if way.closely else fewer):
                groups.setdefault(way.group or way.name, []).append(way)
        for group in chance.sample(list(groups.values()), len(groups)):
            for way in chance.sample(group, len(group)):
                yield turn, way


def iperf(way: Way, *options: str) -> dict[str, Any]:
    """Run iperf3 from end to end and return what it says."""
    command = ("iperf3", "--client", way.target, "--json", *options)
    said = way.client.host.run(*way.client.inside, *command, timeout=30, check=False)
    answer: dict[str, Any] = json.loads(said.stdout)
    if "error" in answer:
        raise ValueError(f"iperf3: {answer['error']}")
    return answer


def gbits(answer: Mapping[str, Any]) -> float:
    """Return what arrived, in Gbit/s."""
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def measure_stream(way: Way, seconds: int) -> tuple[float, float]:
    """Return Gbit/s of one stream, and seconds of the whole machine's CPU time for a gigabyte."""
    before, begun = _busy_seconds(), time.perf_counter()
    sent = iperf(way, f"--port={PORT}", f"--time={seconds}")
    spent, took = _busy_seconds() - before, time.perf_counter() - begun
    gigabytes = sent["end"]["sum_received"]["bytes"] / 1e9
    return gbits(sent), min(spent, took * (os.cpu_count() or 1)) / gigabytes


def _busy_seconds() -> float:
    """Return the CPU time of this machine, interrupts and all, that was not idle (/proc/stat, proc(5))."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft, stolen = fields
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the ratio of medians."""
    return median(over) / median(under)


def interval(over: Sequence[float], under: Sequence[float]) -> tuple[float, float] | None:
    """Return where the ratio of medians lies in 95 % of draws from the turns, with replacement (the bootstrap).

    None for few turns. The same samples, in the order of their turns, give the same interval.
    """
    turns = list(zip(over, under, strict=False))
    if len(turns) < _FEWEST:
        return None
    chance, found = random.Random(1), []
    for _ in range(_DRAWS):
        drawn = chance.choices(turns, k=len(turns))
        found.append(ratio([first for first, _ in drawn], [second for _, second in drawn]))
    found.sort()
    left_out = round(_DRAWS * (1 - SURE) / 2)
    return found[left_out], found[-1 - left_out]


def said(samples: Mapping[str, Sequence[float]], way: str, other: str, *, closely: bool = True, digits: int = 2) -> str:
    """Return the ratio of two ways for a table, with its interval where it was measured ``closely``."""
    over, under = samples.get(way), samples.get(other)
    # A search for a rate without loss may end at none.
    if not over or not under or not median(under):
        return ""
    text = f"{ratio(over, under):.{digits}f}"
    if closely and (between := interval(over, under)):
        text += f" ({between[0]:.{digits}f} to {between[1]:.{digits}f})"
    return text


def judge(name: str, samples: Mapping[str, Sequence[float]], way: str, other: str, what: str, limited_by: str) -> None:
    """Put the goal for a driver into the report: how its way compares with another one."""
    if samples.get(way) and samples.get(other):
        over, under = samples[way], samples[other]
        text = f"TCP by {name}, ratio to {what}"
        between = interval(over, under)
        goal(text, ratio(over, under), OF_BY_HAND, least=True, limited_by=limited_by, between=between or ())
