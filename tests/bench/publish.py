"""One container that publishes 1, 32, 206 and 1,000 ports: attached and detached by netagent and by its peers.

Each side has a machine of its own, and they take turns. The ports are single ones, as an engine passes them on, not a
range. The most take a peer long, so there are fewer turns of them.
"""

import argparse

from tests.bench.cni import REFERENCE
from tests.bench.report import draw_lines, keep, median, say, show
from tests.bench.sides import NETWORKS
from tests.bench.turns import OWN, turns

DOCKER, NETAVARK, BY_HAND = "docker, no userland-proxy", "netavark", "ip -batch + nft by hand"
SIDES = (OWN, REFERENCE, NETAVARK, DOCKER, BY_HAND)
SLOW = (DOCKER, NETAVARK)
"""Which take minutes for 1,000 ports."""
SIZES = {1: 5, 32: 3, 206: 1, 1000: 1}
"""The numbers of ports, and how many turns of each."""
FIRST_PORT = 20000
Times = dict[str, dict[str, dict[int, list[float]]]]


def main(arguments: list[str]) -> None:
    """Measure and print; ``--most`` are ports of all sides, ``--slow`` those of the slowest two, 0 without them."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench publish", description=__doc__)
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=206)
    parser.add_argument("--rounds", type=int, default=1, help="times the turns of each number")
    options = parser.parse_args(arguments)
    most = {side: options.slow if side in SLOW else options.most for side in SIDES}
    report(measure({side: ports for side, ports in most.items() if ports}, options.rounds))


def measure(most: dict[str, int], rounds: int) -> Times:
    """Return the times in ms by verb, side and number of ports."""
    times: Times = {verb: {side: {} for side in most} for verb in ("attach", "detach")}
    with turns(tuple(most)) as taking_part:
        for side in taking_part:
            taking_part.do(side, "make", 0, NETWORKS)
            taking_part.do(side, "attach", 0, NETWORKS)
        number = NETWORKS
        for size, turns_of_it in SIZES.items():
            ports = [FIRST_PORT, FIRST_PORT + size]
            for _ in range(turns_of_it * rounds):
                number += 1
                for side in taking_part:
                    if size > most[side]:
                        continue
                    if size >= 100:
                        say(f"{size:,} ports: {side}")
                    taking_part.do(side, "make", number, 1, ports=ports)
                    for verb in ("attach", "detach"):
                        done = taking_part.do(side, verb, number, 1, ports=ports)
                        if done:
                            times[verb][side].setdefault(size, []).extend(done["ms"])
                    taking_part.do(side, "remove", number, 1)
    return times


def report(times: Times) -> None:
    """Print the tables and keep the figures."""
    for verb, sides in times.items():
        rows = []
        for side, sizes in sides.items():
            for size, samples in sizes.items():
                compared = sides[REFERENCE].get(size)
                ratio = f"{median(samples) / median(compared):.3f}" if compared else ""
                to_one = f"{median(samples) / median(sizes[1]):.1f}" if 1 in sizes else ""
                rows.append((f"{side}, {size:,} ports", ratio, to_one, f"{median(samples):,.1f}", str(len(samples))))
        columns = ("", f"ratio to {REFERENCE}", "ratio to one port", "median ms", "turns")
        show(f"{verb.capitalize()} one container with so many ports", columns, rows)
        series = {side: [(n, median(samples)) for n, samples in sizes.items()] for side, sizes in sides.items()}
        title = f"{verb.capitalize()} one container with published ports: median"
        draw_lines(f"publish-{verb}", title, "published ports", "ms", series, log=True)
    keep("publish", {"unit": "ms", "samples": times})
