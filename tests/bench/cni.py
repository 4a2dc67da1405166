"""ADD and DEL with one published port: netagent beside the reference plugins bridge, portmap and firewall.

Both run on one throw-away machine, in turns, so that what disturbs one disturbs the other. The time is that of all
plugins of a list, from the first exec to the last one's end, as a runtime sees it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench.report import draw_bars, keep, median, p99, show
from tests.support.cni import PLUGIN
from tests.support.cni_runner import Runner
from tests.support.lone_host import ROOT, LoneHost

REFERENCE_PLUGINS = Path("/usr/lib/cni")
CACHE = Path("/run/cni-cache")
"""Of the machine, where /run is in memory and its own."""

PAUSE_S = 0.05
"""Between two timed calls, for what the kernel and the agent do after they have answered."""

SUBNETS = {"netagent": "10.40.0.0/16", "reference": "10.41.0.0/16"}
LISTS: dict[str, dict[str, Any]] = {
    "netagent": {
        "cniVersion": "1.0.0",
        "name": "bench",
        "plugins": [{"type": "netagent", "capabilities": {"portMappings": True}}],
    },
    "reference": {
        "cniVersion": "1.0.0",
        "name": "reference",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "ref0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": SUBNETS["reference"]}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
            {"type": "firewall"},
        ],
    },
}


def main(arguments: list[str]) -> None:
    """Measure and print; ``--count`` is the number of containers of each side."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench cni", description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--burst", type=int, default=200, help="ADDs begun at once, as by a runtime that starts")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        json.dump(measure(options.count, options.burst), sys.stdout)
        return
    # On a disk, as in use: the agent waits for it before it answers.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, _host(Path(directory)) as host:
        host.start_agent()
        host.netagent("network", "create", "--subnet", SUBNETS["netagent"], LISTS["netagent"]["name"])
        command = [*host.prefix, "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench"]
        command += ["cni", "--inside", f"--count={options.count}", f"--burst={options.burst}"]
        done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit("the measurement failed")
    report(json.loads(done.stdout))


def _host(directory: Path) -> LoneHost:
    disk = directory / "disk"
    disk.mkdir()
    return LoneHost(directory / "agent.log", disk=disk)


def measure(count: int, burst: int) -> dict[str, dict[str, list[float]]]:
    """Return the times in ms by side and verb. One container of each side is there all the time, so the bridges are."""
    runners = {
        "netagent": Runner(conflist=LISTS["netagent"], path=[PLUGIN.parent], cache=CACHE / "netagent"),
        "reference": Runner(
            conflist=LISTS["reference"],
            path=[REFERENCE_PLUGINS],
            cache=CACHE / "reference",
            environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        ),
    }
    times: dict[str, dict[str, list[float]]] = {side: {"ADD": [], "DEL": []} for side in runners}
    for side, runner in runners.items():
        runner.add(f"{side}-0", _netns(f"{side}-0"), **_publish(side, 0))
    for number in range(1, count + 1):
        for side, runner in runners.items():
            name = f"{side}-{number}"
            times[side]["ADD"].append(_timed(runner.add, name, _netns(name), **_publish(side, number)))
        for side, runner in runners.items():
            name = f"{side}-{number}"
            times[side]["DEL"].append(_timed(runner.delete, name, f"/run/netns/{name}", **_publish(side, number)))
            subprocess.run(["ip", "netns", "delete", name], check=True)
    for side, runner in runners.items():
        times[side]["burst"] = _burst(runner, side, burst)
    times["interpreter"] = {"start": [_timed(_start_interpreter) for _ in range(count)]}
    return times


def _burst(runner: Runner, side: str, burst: int) -> list[float]:
    """Return how long each of many ADDs took that were begun at once; two with one address end the measurement."""
    names = [f"{side}-burst-{number}" for number in range(burst)]
    for name in names:
        _netns(name)

    def add(number: int) -> tuple[float, str]:
        begun = time.perf_counter()
        result = runner.add(names[number], f"/run/netns/{names[number]}", **_publish(side, 300 + number))
        return (time.perf_counter() - begun) * 1000, result["ips"][0]["address"]

    with ThreadPoolExecutor(burst) as pool:
        done = list(pool.map(add, range(burst)))
        list(pool.map(lambda name: runner.delete(name, f"/run/netns/{name}"), names))
    if len({address for _, address in done}) < burst:
        raise SystemExit(f"{side} gave an address twice")
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    return [took for took, _ in done]


def _netns(name: str) -> str:
    subprocess.run(["ip", "netns", "add", name], check=True)
    return f"/run/netns/{name}"


def _publish(side: str, number: int) -> dict[str, Any]:
    port = {"netagent": 20000, "reference": 21000}[side] + number
    return {"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]}


def _start_interpreter() -> None:
    subprocess.run(["/usr/bin/python3", "-IS", "-c", "pass"], env={}, check=True)


def _timed(action: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    time.sleep(PAUSE_S)
    begun = time.perf_counter()
    action(*arguments, **options)
    return (time.perf_counter() - begun) * 1000


def report(times: dict[str, dict[str, list[float]]]) -> None:
    """Print the table and keep the figures."""
    rows = []
    for verb in ("ADD", "DEL", "burst"):
        title = f"{len(times['netagent'][verb])} ADDs at once:" if verb == "burst" else verb
        own, reference = times["netagent"][verb], times["reference"][verb]
        ratio = median(own) / median(reference)
        for side, samples in (("netagent", own), ("bridge + portmap + firewall", reference)):
            shown = f"{ratio:.2f}" if side == "netagent" else "1"
            rows.append((f"{title} {side}", f"{median(samples):.1f}", f"{p99(samples):.1f}", shown))
    start = times["interpreter"]["start"]
    rows.append(("(of this, start of /usr/bin/python3 -IS)", f"{median(start):.1f}", f"{p99(start):.1f}", ""))
    count = len(times["netagent"]["ADD"])
    show(f"CNI, one published port, {count} containers in turns", ("", "median ms", "p99 ms", "ratio"), rows)
    draw_bars("cni", "CNI, one published port: median", "ms", {row[0]: float(row[1]) for row in rows})
    keep("cni", {"unit": "ms", "samples": times})
