"""TCP throughput between two hosts of a lab: between containers over VXLAN, beside the plain path between the hosts.

In turns and over the same underlay, so that the ratio says what the overlay costs; both ends share this machine's CPUs.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.bench.report import keep, median, show
from tests.support.lab import eventually

NETWORK = "bench"
CONTAINER = "bench"
PORT = 5201


def main(arguments: list[str]) -> None:
    """Measure and print; ``--rounds`` turns of ``--seconds`` each."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench overlay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args(arguments)
    with Lab.up(f"bench{os.getpid()}", hosts=2) as lab:
        report(measure(lab.hosts[0], lab.hosts[1], options.rounds, options.seconds), options.seconds)


def measure(client: Host, server: Host, rounds: int, seconds: int) -> dict[str, list[float]]:
    """Return Gbit/s by path, one figure a round."""
    client.run("netagent", "network", "create", "--driver", "vxlan", "--subnet", "10.50.0.0/16", NETWORK)
    for host in (client, server):
        _attach(host)
    targets = {"plain": str(server.ip), "vxlan": _address_of(server)}
    inside = {"plain": (), "vxlan": ("nsenter", f"--net=/run/netns/{CONTAINER}")}
    results: dict[str, list[float]] = {path: [] for path in targets}
    for _ in range(rounds):
        for path, target in targets.items():
            results[path].append(_throughput(client, server, inside[path], target, seconds))
    return results


def _attach(host: Host) -> None:
    eventually(lambda: host.run("netagent", "network", "inspect", NETWORK, check=False).returncode == 0)
    host.run("ip", "netns", "add", CONTAINER)
    host.run("netagent", "attach", "--netns", f"/run/netns/{CONTAINER}", "--name", CONTAINER, "--network", NETWORK)


def _address_of(host: Host) -> str:
    shown = host.run("nsenter", f"--net=/run/netns/{CONTAINER}", "ip", "-4", "-j", "address", "show", "dev", "eth0")
    return str(json.loads(shown.stdout)[0]["addr_info"][0]["local"])


def _throughput(client: Host, server: Host, inside: Sequence[str], target: str, seconds: int) -> float:
    """Return what one TCP connection carries from client to server, in Gbit/s."""
    listener = server.popen(
        *inside,
        "iperf3",
        "--server",
        "--one-off",
        f"--port={PORT}",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: f":{PORT}" in server.run(*inside, "ss", "-tlnH").stdout)
        command = ["iperf3", "--client", target, f"--port={PORT}", f"--time={seconds}", "--json"]
        answer: dict[str, Any] = json.loads(client.run(*inside, *command, timeout=seconds + 30).stdout)
    finally:
        listener.kill()
        listener.wait()
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def report(results: dict[str, list[float]], seconds: int) -> None:
    """Print the table and keep the figures."""
    plain = median(results["plain"])
    rows = [
        (path, f"{median(samples):.1f}", f"{min(samples):.1f} to {max(samples):.1f}", f"{median(samples) / plain:.2f}")
        for path, samples in results.items()
    ]
    count = len(results["plain"])
    show(f"TCP between two hosts, {count} turns of {seconds} s", ("", "median Gbit/s", "range", "ratio"), rows)
    keep("overlay", {"unit": "Gbit/s", "samples": results})
