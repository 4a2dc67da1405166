"""Attach and detach with one published port: netagent's CNI plugin beside all others that do the same.

Each side has a machine of its own, and they take turns. The time of plugins is that of all in a list, from the first
exec to the last one's end, as a runtime sees it; that of Docker is a call of its API, that of Podman its command.
"""

import argparse
from collections.abc import Sequence

from tests.bench.report import draw_bars, goal, keep, median, missing, p99, say, show
from tests.bench.sides import NETWORKS
from tests.bench.turns import OWN, burst_of, turns

REFERENCE, BARE = "bridge + portmap + firewall", "bridge alone"
SIDES = (
    OWN,
    REFERENCE,
    BARE,
    "netavark",
    "ip -batch + nft by hand",
    "docker network connect",
    "podman network connect",
)
NOTES = (
    "`bridge alone` makes no rule and publishes nothing. `netavark` is given an address by Podman, which takes no "
    "part. Docker and Podman connect a container that runs; Podman's is the time of its command."
)
Times = dict[str, dict[str, list[float]]]


def main(arguments: list[str]) -> None:
    """Measure and print; ``--count`` is the number of containers of each side."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench cni", description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--burst", type=int, default=200, help="calls begun at once, as by a runtime that starts")
    parser.add_argument("--sides", nargs="*", default=list(SIDES))
    options = parser.parse_args(arguments)
    times, rates = measure(options.sides, options.count, options.burst)
    report(times, rates, options.count)


def measure(sides: Sequence[str], count: int, burst: int) -> tuple[Times, Times]:
    """Return the times in ms by side and verb, and how many a second when they begin at once."""
    times: Times = {}
    rates: Times = {}
    with turns(sides) as taking_part:
        for side in taking_part:
            # One of each network is there all the time, so that bridges are.
            taking_part.do(side, "make", 0, NETWORKS)
            taking_part.do(side, "attach", 0, NETWORKS)
        for number in range(NETWORKS, count + NETWORKS):
            for side in taking_part:
                taking_part.do(side, "make", number, 1)
            for verb in ("attach", "detach"):
                for side in taking_part:
                    done = taking_part.do(side, verb, number, 1)
                    times.setdefault(side, {}).setdefault(verb, []).extend(done.get("ms", ()))
            for side in taking_part:
                taking_part.do(side, "remove", number, 1)
        for side in taking_part:
            if side.startswith("podman"):
                continue  # Its time is that of a command each, which is not what is compared.
            many = burst_of(burst, *times[side].values())
            say(f"{many} at once: {side}")
            taking_part.do(side, "make", 1000, many)
            for verb in ("attach at once", "detach at once"):
                done = taking_part.do(side, verb, 1000, many)
                times[side][verb] = done.get("ms", [])
                rates.setdefault(side, {})[verb] = [done["a second"]] if done else []
            taking_part.do(side, "remove", 1000, many)
    return times, rates


def report(times: Times, rates: Times, count: int) -> None:
    """Print the tables and keep the figures."""
    reference = times.get(REFERENCE, {})
    rows = [
        (f"{verb} {side}", f"{median(samples):.1f}", f"{p99(samples):.1f}", _ratio(samples, reference.get(verb, [])))
        for verb in ("attach", "detach")
        for side, each in times.items()
        if (samples := each.get(verb))
    ]
    title = f"One container with one published port, {count} turns"
    show(title, ("", "median ms", "p99 ms", f"ratio to {REFERENCE}"), rows, note=NOTES)
    groups = {
        verb: {side: median(each[verb]) for side, each in times.items() if each.get(verb)}
        for verb in ("attach", "detach")
    }
    draw_bars("cni", f"{title}: median", "ms", groups)
    _report_bursts(times, rates)
    _judge(times, rates)
    keep("cni", {"unit": "ms", "samples": times, "rates": rates})


def _report_bursts(times: Times, rates: Times) -> None:
    rows = []
    groups: dict[str, dict[str, float]] = {}
    for verb in ("attach at once", "detach at once"):
        for side, each in rates.items():
            if not each.get(verb):
                continue
            samples, (rate,) = times[side][verb], each[verb]
            compared = rates.get(REFERENCE, {}).get(verb)
            ratio = f"{rate / compared[0]:.2f}" if compared else ""
            row = (
                f"{len(samples)} {verb}, {side}",
                f"{rate:.1f}",
                f"{median(samples):.0f}",
                f"{p99(samples):.0f}",
                ratio,
            )
            rows.append(row)
            groups.setdefault(verb, {})[side] = rate
    if rows:
        columns = ("", "a second", "median ms", "p99 ms", f"ratio to {REFERENCE}")
        show("Many at once", columns, rows)
        draw_bars("cni-at-once", "Many at once: how many a second", "a second", groups)


def _judge(times: Times, rates: Times) -> None:
    own, reference, bare = times[OWN], times.get(REFERENCE), times.get(BARE)
    for verb, name in (("attach", "ADD"), ("detach", "DEL")):
        limits = "the profile of an attach says where the time goes"
        if reference and reference.get(verb):
            ratio = median(own[verb]) / median(reference[verb])
            goal(f"CNI {name}, ratio to the reference chain", ratio, 0.15, limited_by=limits)
        if bare and bare.get(verb):
            goal(
                f"CNI {name}, bare bridge plugin plus 5 ms",
                median(own[verb]),
                median(bare[verb]) + 5,
                "ms",
                limited_by=limits,
            )
    (rate,) = rates[OWN]["attach at once"]
    goal("parallel ADDs a second", rate, 100, "a second", least=True, limited_by="the profile of an attach says where")
    if not reference:
        missing(f"no ratios to {REFERENCE}")


def _ratio(samples: Sequence[float], reference: Sequence[float]) -> str:
    return f"{median(samples) / median(reference):.2f}" if reference else ""
