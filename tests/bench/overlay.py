"""TCP throughput between containers on two hosts of a lab: by each driver, and by the same datapath set up by hand.

In turns and over the same underlay, so that the ratio says what netagent's own part costs: its firewall. ``plain`` is
between the hosts themselves; ``gre`` is Open vSwitch's userspace datapath, with a plain path of its own. Both ends
share this machine's CPUs.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.bench.by_hand import set_up_by_hand
from tests.bench.report import draw_bars, keep, median, show
from tests.support.lab import eventually

PORT = 5201


def main(arguments: list[str]) -> None:
    """Measure and print; ``--rounds`` turns of ``--seconds`` each."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench overlay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--drivers", nargs="*", default=["vxlan", "route", "gre"])
    options = parser.parse_args(arguments)
    results: dict[str, list[float]] = {}
    for underlay, drivers in (("both", ("vxlan", "route")), ("ovs", ("gre",))):
        chosen = [driver for driver in drivers if driver in options.drivers]
        if not chosen:
            continue
        with Lab.up(f"bench{os.getpid()}", hosts=2, underlay=underlay) as lab:
            results |= measure(lab, chosen, options.rounds, options.seconds)
    report(results, options.seconds)


def measure(lab: Lab, drivers: Sequence[str], rounds: int, seconds: int) -> dict[str, list[float]]:
    """Return Gbit/s by path, one figure a round."""
    client, server = lab.hosts
    plain = "plain (Open vSwitch)" if lab.layout.underlay == "ovs" else "plain"
    paths: dict[str, tuple[tuple[str, ...], str]] = {plain: ((), str(server.ip))}
    for number, driver in enumerate(drivers, 1):
        client.run("netagent", "network", "create", "--driver", driver, "--subnet", f"10.5{number}.0.0/16", driver)
        for host in (client, server):
            _attach(host, driver)
            set_up_by_hand(host, server if host is client else client, driver, number)
        paths[driver] = (_inside(driver), _address_of(server, driver))
        paths[f"{driver} by hand"] = (_inside(f"{driver}-hand"), f"10.6{number}.2.2")
    results: dict[str, list[float]] = {path: [] for path in paths}
    for _ in range(rounds):
        for path, (inside, target) in paths.items():
            results[path].append(_throughput(client, server, inside, target, seconds))
    return results


def _inside(namespace: str) -> tuple[str, ...]:
    return ("nsenter", f"--net=/run/netns/{namespace}")


def _attach(host: Host, name: str) -> None:
    eventually(lambda: host.run("netagent", "network", "inspect", name, check=False).returncode == 0)
    host.run("ip", "netns", "add", name)
    host.run("netagent", "attach", "--netns", f"/run/netns/{name}", "--name", name, "--network", name)


def _address_of(host: Host, name: str) -> str:
    shown = host.run(*_inside(name), "ip", "-4", "-j", "address", "show", "dev", "eth0")
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
    rows = [
        (path, f"{median(samples):.2f}", f"{min(samples):.2f} to {max(samples):.2f}", _of_hand(path, results))
        for path, samples in results.items()
    ]
    count = len(next(iter(results.values())))
    draw_bars("overlay", "TCP between two hosts: median", "Gbit/s", {k: median(v) for k, v in results.items()})
    show(f"TCP between two hosts, {count} turns of {seconds} s", ("", "median Gbit/s", "range", "of by hand"), rows)
    keep("overlay", {"unit": "Gbit/s", "samples": results})


def _of_hand(path: str, results: dict[str, list[float]]) -> str:
    by_hand = results.get(f"{path} by hand")
    return f"{median(results[path]) / median(by_hand):.2f}" if by_hand else ""
