"""One more container, and many at once, on a host that has none, 100, 300, 1,000 and 3,000 endpoints.

Each side has a machine of its own and as many endpoints on four networks, as a bridge takes 1,023 ports. They take
turns; beside netagent's plugin are the reference plugins, whose rules grow by each container, and the same by hand.
"""

import argparse

from tests.bench.cni import REFERENCE
from tests.bench.report import draw_lines, goal, keep, median, p99, say, show
from tests.bench.sides import NETWORKS
from tests.bench.turns import OWN, Turns, burst_of, turns

BY_HAND = "ip -batch + nft by hand"
SIZES = (NETWORKS, 100, 300, 1000, 3000)
FIRST = 5000
"""The number of the first that is attached for a measurement."""
SETTLE = 1000
FLAT = 1.25
"""What may be called flat: the ratio of a median among the most to one among the fewest."""
VERBS = ("attach", "detach")
Times = dict[str, dict[int, dict[str, list[float]]]]


def main(arguments: list[str]) -> None:
    """Measure and print; ``--endpoints`` and ``--reference`` are the many of netagent and of the plugins."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench scale", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=3000)
    parser.add_argument("--reference", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--burst", type=int, default=200, help="calls begun at once")
    options = parser.parse_args(arguments)
    most = {OWN: options.endpoints, REFERENCE: options.reference, BY_HAND: options.endpoints}
    report(*measure(most, options.rounds, options.burst))


def measure(most: dict[str, int], rounds: int, burst: int) -> tuple[Times, Times]:
    """Return the times in ms by side, number of endpoints and verb; and calls a second when many begin at once."""
    times: Times = {side: {} for side in most}
    rates: Times = {side: {} for side in most}
    there = dict.fromkeys(most, 0)
    with turns(tuple(most)) as taking_part:
        for size in sorted({*SIZES, *most.values()}):
            now = [side for side in taking_part if size <= most[side]]
            for side in now:
                say(f"{size:,} endpoints: {side}")
                taking_part.do(side, "fill", there[side], size - there[side])
                there[side] = size
                times[side][size] = {verb: [] for verb in VERBS}
            for number in range(FIRST, FIRST + rounds):
                for verb in ("make", *VERBS, "remove"):
                    for side in now:
                        done = taking_part.do(side, verb, number, 1)
                        if verb in VERBS:
                            times[side][size][verb] += done.get("ms", ())
            for side in now:
                rates[side][size] = _at_once(taking_part, side, burst_of(burst, *times[side][size].values()))
    return times, rates


def _at_once(taking_part: Turns, side: str, many: int) -> dict[str, list[float]]:
    first, rates = FIRST + SETTLE, {}
    taking_part.do(side, "make", first, many)
    for verb in VERBS:
        done = taking_part.do(side, f"{verb} at once", first, many)
        rates[verb] = [done["a second"]] if done else []
    taking_part.do(side, "remove", first, many)
    return rates


def report(times: Times, rates: Times) -> None:
    """Print the tables and keep the figures."""
    rows = []
    for verb in VERBS:
        for side, sizes in times.items():
            shown = {size: samples[verb] for size, samples in sizes.items() if samples[verb]}
            few = median(shown[min(shown)]) if shown else 1
            rows += [
                (
                    f"{verb} {side}, among {size:,}",
                    f"{median(samples):.1f}",
                    f"{p99(samples):.1f}",
                    f"{median(samples) / few:.2f}",
                    _rate(rates, side, size, verb),
                )
                for size, samples in shown.items()
            ]
    columns = ("", "median ms", "p99 ms", f"ratio to {NETWORKS}", "at once, a second")
    show(f"One more container with a port, {NETWORKS} networks", columns, rows)
    for verb in VERBS:
        series = {
            side + suffix: [(size, of(each[verb])) for size, each in sizes.items() if each[verb]]
            for side, sizes in times.items()
            for suffix, of in (("", median), (" p99", p99))
        }
        title = f"{verb.capitalize()} one more container with a port: median, dashed p99"
        draw_lines(f"scale-{verb}", title, "endpoints on the host", "ms", series, log=True)
    series = {
        f"{verb} {side}": [(size, each[verb][0]) for size, each in sizes.items() if each.get(verb)]
        for side, sizes in rates.items()
        for verb in VERBS
    }
    draw_lines(
        "scale-at-once", "Begun at once: how many a second", "endpoints on the host", "a second", series, log=True
    )
    _judge(times, rates)
    keep("scale", {"unit": "ms", "samples": times, "rates": rates})


def _rate(rates: Times, side: str, size: int, verb: str) -> str:
    found = rates[side].get(size, {}).get(verb)
    return f"{found[0]:.1f}" if found else ""


def _judge(times: Times, rates: Times) -> None:
    own = times[OWN]
    least, most = min(own), max(own)
    for verb in VERBS:
        ratio = median(own[most][verb]) / median(own[least][verb])
        kernel = times[BY_HAND].get(most, {}).get(verb)
        grown = (
            f"the same by hand has grown to {median(kernel) / median(times[BY_HAND][least][verb]):.2f}"
            if kernel
            else ""
        )
        goal(f"{verb} among {most:,} endpoints, ratio to {least}", ratio, FLAT, limited_by=grown)
    if rate := rates[OWN][most].get("attach"):
        goal(f"parallel ADDs a second among {most:,} endpoints", rate[0], 100, "a second", least=True)
