"""What publishing costs: the call for 1, 32, 206 and 1,000 ports, and a connection through one of many.

The call is the agent's ``Publish`` of a running container, in turns over all sizes; what it does after the answer is
waited for between two. Connections go from another machine to the host's address, beside a kernel in which every port
is a rule of iptables, as the reference plugin portmap makes them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc

from netagent.v1.containers_pb2 import AttachRequest, Connection, PublishRequest, UnpublishRequest
from netagent.v1.containers_pb2_grpc import ContainersStub
from tests.bench.report import draw_lines, keep, median, p99, say, show
from tests.support.lab import eventually
from tests.support.lone_host import ADDRESS, ROOT, LoneHost

TURNS = 4
SIZES = (1, 32, 206, 1000)
AMONG = (10, 1000, 10000)
FIRST = 20000
CONTAINER = "bench"
RULES = "a rule a port"
PAUSE_S = 0.25
"""Between two timed calls, for the sockets and the connection table, which come after the answer."""

CLIENT = str(Path(__file__).with_name("connect.py"))
RATE_S = 1.0


def main(arguments: list[str]) -> None:
    """Measure and print; ``--rounds`` calls of each size, ``--connections`` among each number of ports."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench ports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=RATE_S, help="of connections as fast as they go")
    parser.add_argument("--among", type=int, nargs="*", default=list(AMONG))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        json.dump(measure_calls(options.rounds), sys.stdout)
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        disk = Path(directory) / "disk"
        disk.mkdir()
        with LoneHost(Path(directory) / "agent.log", disk=disk) as host:
            host.start_agent()
            host.netagent("network", "create", "--subnet", "10.60.0.0/16", "bench")
            command = [*host.prefix, "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench", "ports"]
            done = subprocess.run([*command, "--inside", f"--rounds={options.rounds}"], stdout=subprocess.PIPE)
            if done.returncode:
                raise SystemExit("the measurement failed")
            calls = json.loads(done.stdout)
            connections = measure_connections(host, options.connections, options.among, options.seconds)
    report(calls, connections)


def measure_calls(rounds: int) -> dict[str, dict[int, list[float]]]:
    """Return the times of a call in ms, by kind and number of ports."""
    channel = grpc.insecure_channel("unix:/run/netagent/agent.sock")
    containers = ContainersStub(channel)
    subprocess.run(["ip", "netns", "add", CONTAINER], check=True)
    containers.Attach(
        AttachRequest(name=CONTAINER, netns=f"/run/netns/{CONTAINER}", connection=Connection(networks=["bench"]))
    )
    times: dict[str, dict[int, list[float]]] = {kind: {size: [] for size in SIZES} for kind in _TEXTS}
    for kind, text in _TEXTS.items():
        for _ in range(rounds):
            for size in SIZES:
                request = [text(size)]
                time.sleep(PAUSE_S)
                begun = time.perf_counter()
                containers.Publish(PublishRequest(name=CONTAINER, publish=request))
                times[kind][size].append((time.perf_counter() - begun) * 1000)
                time.sleep(PAUSE_S)
                containers.Unpublish(UnpublishRequest(name=CONTAINER, publish=request))
    return times


_TEXTS: dict[str, Callable[[int], str]] = {
    "same numbers inside": lambda size: f"{FIRST}-{FIRST + size - 1}:{FIRST}-{FIRST + size - 1}",
    "other numbers inside": lambda size: f"{FIRST}-{FIRST + size - 1}:{FIRST + 1}-{FIRST + size}",
}


@dataclass(slots=True)
class Connections:
    """Through one port among others: the times to connect in microseconds, and how many a second at once."""

    times: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


Sides = dict[str, dict[int, Connections]]


def measure_connections(host: LoneHost, count: int, sizes: Sequence[int], rate_s: float) -> Sides:
    """Return what connections take by kind and number of published ports, in turns."""
    server = "import socket;s=socket.socket();s.bind(('',80));s.listen(4096)\nwhile 1:s.accept()[0].close()"
    host.spawn(sys.executable, "-c", server, inside=CONTAINER)
    eventually(lambda: host.run("ss", "-tlnH", "sport = :80", inside=CONTAINER))
    target = host.json("ip", "-j", "-4", "address", "show", "dev", "eth0", inside=CONTAINER)[0]["addr_info"][0]["local"]
    host.netagent("publish", CONTAINER, f"{FIRST - 1}:80")
    # One port leads to the server; the others share neither its rule nor its element.
    sides: Sides = {side: {size: Connections() for size in sizes} for side in ("netagent", RULES)}

    def connect(into: Connections, port: int) -> None:
        command = (sys.executable, CLIENT, ADDRESS, str(port), str(count // TURNS), str(rate_s))
        said = json.loads(host.run(*command, inside="lan"))
        into.times += said["us"]
        into.rates.append(said["a second"])

    connect(Connections(), FIRST - 1)
    for turn in range(TURNS):
        for among in sizes:
            say(f"connections among {among:,}, turn {turn + 1} of {TURNS}")
            others = f"{FIRST}-{FIRST + among - 2}:{FIRST + 1}-{FIRST + among - 1}"
            host.netagent("publish", CONTAINER, others)
            time.sleep(PAUSE_S * 8)
            connect(sides["netagent"][among], FIRST - 1)
            host.netagent("unpublish", CONTAINER, others)
            _publish_by_rules(host, target, range(FIRST, FIRST + among))
            connect(sides[RULES][among], FIRST + among - 1)
            _publish_by_rules(host, target, ())
    return sides


def _publish_by_rules(host: LoneHost, target: str, ports: Iterable[int]) -> None:
    """Fill a chain of iptables with a rule for each port."""
    rules = [f"-A BENCH -p tcp -m tcp --dport {port} -j DNAT --to-destination {target}:80" for port in ports]
    jump = "-A PREROUTING -m addrtype --dst-type LOCAL -j BENCH"
    text = "\n".join(["*nat", ":PREROUTING ACCEPT", ":BENCH -", jump, *rules, "COMMIT", ""])
    subprocess.run([*host.prefix, "iptables-restore"], input=text, text=True, check=True)


def report(calls: dict[str, dict[str, list[float]]], connections: Sides) -> None:
    """Print the tables and keep the figures."""
    rows = []
    for kind, sizes in calls.items():
        one = median(sizes["1"])
        rows += [
            (f"{size} ports, {kind}", f"{median(times):.1f}", f"{p99(times):.1f}", f"{median(times) / one:.2f}")
            for size, times in sizes.items()
        ]
    series = {f"netagent, {kind}": [(float(n), median(t)) for n, t in sizes.items()] for kind, sizes in calls.items()}
    draw_lines("publish-running", "Publish on a running container: median", "ports", "ms", series)
    count = len(next(iter(calls.values()))["1"])
    show(f"Publish on a running container, {count} calls each", ("", "median ms", "p99 ms", "ratio to one"), rows)
    _report_connections(connections)
    kept = {side: {among: asdict(each) for among, each in sizes.items()} for side, sizes in connections.items()}
    keep("ports", {"unit": {"calls": "ms", "connections": "us"}, "calls": calls, "connections": kept})


def _report_connections(connections: Sides) -> None:
    rules, rows = connections[RULES], []
    for side, sizes in connections.items():
        least = next(iter(sizes.values()))
        for among, each in sizes.items():
            ratios = median(each.times) / median(rules[among].times), median(each.times) / median(least.times)
            rows.append(
                (
                    f"{side}, among {among:,}",
                    *(f"{ratio:.2f}" for ratio in (*ratios, median(each.rates) / median(rules[among].rates))),
                    f"{median(each.times):.0f}",
                    f"{p99(each.times):.0f}",
                    f"{median(each.rates):,.0f}",
                )
            )
    columns = ("", f"ratio to {RULES}", "ratio to the fewest", "ratio of rates", "median us", "p99 us", "a second")
    show("Connect through one published port among many", columns, rows)
    shown = {
        side + suffix: [(float(among), of(each.times)) for among, each in sizes.items()]
        for side, sizes in connections.items()
        for suffix, of in (("", median), (" p99", p99))
    }
    title = "Connect through one published port among many: median, dashed p99"
    draw_lines("connect", title, "published ports", "us", shown, log=True)
    rates = {
        side: [(float(among), median(each.rates)) for among, each in sizes.items()]
        for side, sizes in connections.items()
    }
    draw_lines("connect-rate", "Connections a second through one among many", "published ports", "a second", rates)
