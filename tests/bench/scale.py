"""Attach and detach with one published port on a host that has none, 10, 100, 300 and 1,000 endpoints.

The endpoints are on several networks, as a bridge takes 1,023 ports. The time is that of the agent's own calls, beside
the reference plugins bridge, portmap and firewall, whose rules grow by each container.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from netagent.v1.containers_pb2 import AttachRequest, Connection, DetachRequest
from netagent.v1.containers_pb2_grpc import ContainersStub
from tests.bench.cni import CACHE, LISTS, REFERENCE_PLUGINS
from tests.bench.report import draw_lines, keep, median, p99, show
from tests.support.cni_runner import Runner
from tests.support.lone_host import ROOT, LoneHost

NETWORKS = 4
SIZES = (1, 10, 100, 300, 1000, 3000)
FEW = 10
FIRST_PORT = 10000
PAUSE_S = 0.1
Times = dict[str, dict[str, list[float]]]


def main(arguments: list[str]) -> None:
    """Measure and print; ``--endpoints`` and ``--reference`` are the many of each side."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench scale", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--reference", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        json.dump(measure(options.endpoints, options.reference, options.rounds), sys.stdout)
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        disk = Path(directory) / "disk"
        disk.mkdir()
        with LoneHost(Path(directory) / "agent.log", disk=disk) as host:
            host.start_agent()
            for number in range(NETWORKS):
                host.netagent("network", "create", "--subnet", f"10.{70 + number}.0.0/16", f"bench{number}")
            command = [*host.prefix, "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench", "scale"]
            sizes = [f"--endpoints={options.endpoints}", f"--reference={options.reference}"]
            command += ["--inside", *sizes, f"--rounds={options.rounds}"]
            done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit("the measurement failed")
    report(json.loads(done.stdout))


def measure(endpoints: int, reference: int, rounds: int) -> dict[str, Times]:
    """Return the times in ms by side, number of endpoints and verb."""
    sides = (("netagent", _Agent(), endpoints), ("bridge + portmap + firewall", _Plugins(), reference))
    times: dict[str, Times] = {side: {} for side, _, _ in sides}
    there = dict.fromkeys(times, 0)
    for size in SIZES:
        taking_part = [(side, worker) for side, worker, most in sides if size <= most]
        for side, worker in taking_part:
            for number in range(there[side], size):
                _make_namespace(f"{worker.name}{number}")
                worker.attach(number)
            there[side] = size
            times[side][str(size)] = {"attach": [], "detach": []}
        time.sleep(PAUSE_S * 20)
        for _ in range(rounds):
            for side, worker in taking_part:
                _sample(worker, size, times[side][str(size)])
    return times


def _sample(worker: "_Agent | _Plugins", number: int, times: dict[str, list[float]]) -> None:
    _make_namespace(f"{worker.name}{number}")
    times["attach"].append(_timed(worker.attach, number))
    times["detach"].append(_timed(worker.detach, number))
    subprocess.run(["ip", "netns", "delete", f"{worker.name}{number}"], check=True)


class _Agent:
    name = "own"

    def __init__(self) -> None:
        self._containers = ContainersStub(grpc.insecure_channel("unix:/run/netagent/agent.sock"))

    def attach(self, number: int) -> None:
        connection = Connection(networks=[f"bench{number % NETWORKS}"], publish=[f"{FIRST_PORT + number}:80"])
        request = AttachRequest(name=f"own{number}", netns=f"/run/netns/own{number}", connection=connection)
        self._containers.Attach(request)

    def detach(self, number: int) -> None:
        self._containers.Detach(DetachRequest(name=f"own{number}"))


class _Plugins:
    name = "ref"

    def __init__(self) -> None:
        self._runner = Runner(
            conflist=LISTS["reference"],
            path=[REFERENCE_PLUGINS],
            cache=CACHE / "reference",
            environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def attach(self, number: int) -> None:
        self._runner.add(f"ref{number}", f"/run/netns/ref{number}", portMappings=[_mapping(number)])

    def detach(self, number: int) -> None:
        self._runner.delete(f"ref{number}", f"/run/netns/ref{number}", portMappings=[_mapping(number)])


def _mapping(number: int) -> dict[str, int | str]:
    return {"hostPort": FIRST_PORT + 20000 + number, "containerPort": 80, "protocol": "tcp"}


def _make_namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "add", name], check=True)


def _timed(action: Callable[[int], None], number: int) -> float:
    time.sleep(PAUSE_S)
    begun = time.perf_counter()
    action(number)
    return (time.perf_counter() - begun) * 1000


def report(times: dict[str, Times]) -> None:
    """Print the table and keep the figures."""
    rows = []
    for side, sizes in times.items():
        few = sizes[str(FEW)]
        rows += [
            (
                f"{verb} {side}, among {size}",
                f"{median(samples[verb]):.1f}",
                f"{p99(samples[verb]):.1f}",
                f"{median(samples[verb]) / median(few[verb]):.2f}",
            )
            for verb in ("attach", "detach")
            for size, samples in sizes.items()
        ]
    series = {
        f"{verb} {side}": [(float(size), median(samples[verb])) for size, samples in sizes.items()]
        for side, sizes in times.items()
        for verb in ("attach", "detach")
    }
    draw_lines("scale", "one more container: median", "endpoints on the host", "ms", series)
    show(f"one more container with a port, {NETWORKS} networks", ("", "median ms", "p99 ms", f"ratio to {FEW}"), rows)
    keep("scale", {"unit": "ms", "samples": times})
