"""Where the agent's time goes: attaching one by one and at once, starting with many endpoints; and the command line's.

The agent looks at itself every other millisecond. The figures are shares of the samples in which a thread was at
something, whether it used a CPU or waited for the kernel or the disk; so they explain a time, and are none.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from netagent.v1.containers_pb2 import AttachRequest, Connection, DetachRequest
from netagent.v1.containers_pb2_grpc import ContainersStub
from tests.bench.report import draw_bars, keep, say, show
from tests.bench.sides import NETWORKS
from tests.support.lab import eventually
from tests.support.lone_host import NETAGENT, ROOT, LoneHost

SHOWN = 14
AREAS = {
    "imports": "imports",
    "store/journal": "journal: SQLite and fsync",
    "store/": "store",
    "kernel/netlink": "netlink: links, addresses, routes",
    "kernel/rtnl": "netlink: links, addresses, routes",
    "kernel/links": "netlink: links, addresses, routes",
    "kernel/routes": "netlink: links, addresses, routes",
    "kernel/observe": "netlink: reading the kernel",
    "kernel/inside": "netlink: reading the kernel",
    "kernel/decode": "netlink: reading the kernel",
    "kernel/netns": "network namespaces",
    "kernel/nf": "nftables",
    "kernel/elements": "nftables",
    "kernel/announce": "announcing addresses",
    "kernel/sysctl": "kernel settings",
    "kernel/reserve": "sockets that hold ports",
    "kernel/firewall": "nftables",
    "kernel/": "kernel, other",
    "firewall/": "deciding",
    "plan/": "deciding",
    "reconcile/": "deciding",
    "drivers/": "deciding",
    "model/": "deciding",
    "services/": "services",
    "dns/": "telling the DNS process",
    "api/": "gRPC and CNI",
    "v1/": "gRPC and CNI",
    "libraries: ": "libraries: asyncio, grpc, msgspec",
}


class SampledHost(LoneHost):
    """A machine whose agent looks at itself."""

    def start_agent(self, *, wait: bool = True) -> None:
        """Start it."""
        command = [*self.prefix, *NETAGENT[:-2], "-m", "tests.bench.sampled", "/run/samples", "agent", *self.options]
        with self.log.open("ab") as log:
            self._agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            eventually(self.serves, within=60)

    def samples(self) -> Counter[str]:
        """Return how often it was where since the last time."""
        asked, out = (Path(f"/proc/{self.agent_pid}/root/run/samples{suffix}") for suffix in (".ask", ""))
        asked.touch()
        eventually(lambda: not asked.exists())
        return Counter(json.loads(out.read_text())["counts"])


def main(arguments: list[str]) -> None:
    """Measure and print; ``--endpoints`` are there when the agent starts, ``--count`` are attached one by one."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench profile", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        disk = Path(directory) / "disk"
        disk.mkdir()
        with SampledHost(Path(directory) / "agent.log", disk=disk) as host:
            found = measure(host, options.endpoints, options.count)
            imports = measure_imports(host)
    report(found, imports)


def measure(host: SampledHost, endpoints: int, count: int) -> dict[str, Counter[str]]:
    """Return the samples by what was done meanwhile."""
    host.start_agent()
    for number in range(NETWORKS):
        host.netagent("network", "create", "--subnet", f"10.{70 + number}.0.0/16", f"bench{number}")
    batch = "\n".join(f"netns add own{number}" for number in range(endpoints + count))
    subprocess.run([*host.prefix, "ip", "-batch", "-"], input=batch, text=True, check=True)
    found = {}
    channel = grpc.insecure_channel(f"unix:/proc/{host.agent_pid}/root/run/netagent/agent.sock")
    containers = ContainersStub(channel)

    def attach(number: int) -> None:
        connection = Connection(networks=[f"bench{number % NETWORKS}"], publish=[f"{10000 + number}:80"])
        request = AttachRequest(name=f"own{number}", netns=f"/run/netns/own{number}", connection=connection)
        containers.Attach(request)

    say(f"attaching {endpoints:,}, {AT_ONCE} at a time")
    host.samples()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(attach, range(endpoints)))
    found[f"attach, {AT_ONCE} at a time"] = host.samples()
    say("one by one")
    for number in range(endpoints, endpoints + count):
        attach(number)
    found["attach, one by one"] = host.samples()
    for number in range(endpoints, endpoints + count):
        containers.Detach(DetachRequest(name=f"own{number}"))
    found["detach, one by one"] = host.samples()
    channel.close()
    say("starting again")
    host.stop_agent()
    host.start_agent()
    found[f"start with {endpoints:,} endpoints"] = host.samples()
    return found


AT_ONCE = 32


def measure_imports(host: LoneHost) -> Counter[str]:
    """Return microseconds that the command line spends in importing, by package."""
    command = [*host.prefix, "env", f"PYTHONPATH={ROOT}", sys.executable, "-X", "importtime", "-m", "netagent"]
    said = subprocess.run([*command, "network", "ls"], capture_output=True, text=True, check=True).stderr
    found: Counter[str] = Counter()
    for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", said):
        found[name.partition(".")[0]] += int(own)
    return found


def area(place: str) -> str:
    """Return what a place belongs to."""
    return next((name for prefix, name in AREAS.items() if place.startswith(prefix)), "other")


def report(found: dict[str, Counter[str]], imports: Counter[str]) -> None:
    """Print the tables and keep the figures."""
    groups = {}
    for title, counts in found.items():
        total = counts.total() or 1
        areas: Counter[str] = Counter()
        for place, number in counts.items():
            areas[area(place)] += number
        groups[title] = {name: 100 * number / total for name, number in areas.most_common(8)}
        rows = [(place, f"{100 * number / total:.1f}") for place, number in counts.most_common(SHOWN)]
        show(f"Where the agent is: {title}", ("", "% of samples"), rows)
    draw_bars("profile", "Where the agent is, by area: share of samples", "%", groups)
    rows = [(name, f"{number / 1000:.1f}") for name, number in imports.most_common(SHOWN)]
    show("Imports of `netagent network ls`, by package", ("", "ms"), rows)
    keep("profile", {"samples": {title: dict(counts) for title, counts in found.items()}, "imports_us": imports})
