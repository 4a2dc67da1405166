"""TCP by each driver on an emulated CPU that counts: what of a stream's instructions is whose, to a thousandth or two.

In a virtual machine with Debian's kernel, which has the GRE that this machine's may lack. Hosts are namespaces there:
two that hold what the agent decides, applied by the agent's own code, two with the same datapaths by hand, and two by
hand with the same checks. The machine's clock advances by a nanosecond an instruction (QEMU's ``-icount``), so nothing
that this machine does besides has a part in the figures. They know no cache and no CPU that does several things at
once: what is calculated weighs more than on a real one, and what is copied less. Only ratios are said.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from netagent.model.address import Address, parse_address
from tests.bench import streams
from tests.bench.by_hand import name_by_hand, way_by_hand
from tests.bench.checks import KERNEL_GRE
from tests.bench.report import keep, missing, say, show
from tests.bench.way import End, Place, Way, enter
from tests.support import vm_hosts
from tests.support.vm import found_in_vm

ROOT = Path(__file__).parents[2]
PLAIN = "plain"
NETWORKS = {KERNEL_GRE: "net", "vxlan": "vxlan", "route": "route"}
"""The drivers, and their networks in ``vm_hosts``."""
HOSTS = {"h1": 1, "h2": 2, "b1": 11, "b2": 12, "c1": 21, "c2": 22}
"""The hosts and their numbers on the underlay: netagent's, by hand, by hand with checks."""
WITHIN_S = 900


class Namespace:
    """A host that is a namespace of the machine this runs in."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.ip: Address = parse_address(f"{vm_hosts.UNDERLAY}.{number}")

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command there to its end, its output as text."""
        command = (*enter(self.name), *argv)
        return subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=timeout, check=check)

    def popen(self, *argv: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a command there."""
        return subprocess.Popen((*enter(self.name), *argv), text=True, **options)


def main(arguments: list[str]) -> None:
    """Measure and print; ``--turns`` of so many ``--megabytes`` each."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench emulated", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.inside:
        print("\nfound", json.dumps(_found(options)))
        return
    say("booting a machine, and measuring in it")
    sizes = (f"--turns={options.turns}", f"--megabytes={options.megabytes}", f"--seed={options.seed}")
    command = (sys.executable, "-m", "tests.bench", "emulated", "--inside", *sizes)
    report(found_in_vm(command, directory=ROOT, timeout=WITHIN_S, counted=True), options)


def _found(options: argparse.Namespace) -> dict[str, Any]:
    """Measure in the machine this runs in; what goes wrong is ``error``."""
    try:
        with ExitStack() as stack:
            ways = _make_ways()
            for way in ways:
                streams.serve(stack, way.server)
            return _measure(ways, options)
    except Exception as error:
        return {"error": f"{error!r} {getattr(error, 'stderr', '')}"}


def _make_ways() -> list[Way]:
    vm_hosts.sh("modprobe", "ip_gre")
    vm_hosts.lay_cables(HOSTS)
    for number in (1, 2):
        known = vm_hosts.snapshot(number, tuple(NETWORKS.values()))
        vm_hosts.add_containers(known)
        left = asyncio.run(vm_hosts.bring_up(known))
        assert not left, f"left to do on h{number}: {left}"
    hosts: list[Place] = [Namespace(name, number) for name, number in HOSTS.items()]
    client, server = (End(host=host) for host in hosts[:2])
    ways = [Way(name=PLAIN, client=client, server=server, target=str(hosts[1].ip), closely=True)]
    for number, (driver, network) in enumerate(NETWORKS.items(), 1):
        client, server = (End(host=host, inside=enter(f"{network}{host.name[1:]}")) for host in hosts[:2])
        target = vm_hosts.address_of(2, network)
        ways += [
            Way(name=_own(driver), client=client, server=server, target=target, group=driver, closely=True),
            way_by_hand(hosts[4:], driver, number, plain=PLAIN, checked=True),
            way_by_hand(hosts[2:4], driver, number, plain=PLAIN, checked=False),
        ]
    return ways


def _own(driver: str) -> str:
    return f"netagent {driver}"


def _measure(ways: list[Way], options: argparse.Namespace) -> dict[str, Any]:
    samples: dict[str, list[float]] = {way.name: [] for way in ways}
    failed = []
    amount = (f"--port={streams.PORT}", f"--bytes={options.megabytes}M")
    for _, way in streams.in_turns(ways, options.turns, 0, options.seed):
        try:
            samples[way.name].append(streams.gbits(streams.iperf(way, *amount)))
        except streams.FAILURES as error:
            failed.append(f"{way.name}: {' '.join(str(error).split())[:300]}")
            ways.remove(way)
    return {"kernel": os.uname().release, "samples": samples, "missing": failed}


def report(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the table and the goal, and keep the figures."""
    for line in found["missing"]:
        missing(line)
    samples: dict[str, list[float]] = found["samples"]
    rows = []
    for driver in NETWORKS:
        by_hand, checked = (name_by_hand(driver, checked=checks) for checks in (False, True))
        for way, others in (
            (_own(driver), (PLAIN, by_hand, checked)),
            (checked, (PLAIN, by_hand)),
            (by_hand, (PLAIN,)),
        ):
            ratios = [streams.said(samples, way, other, digits=3) for other in others]
            rows.append((way, *ratios, *[""] * (3 - len(ratios))))
    show(
        f"TCP, one stream, by instructions of an emulated CPU, turns: {options.turns}",
        ("", "of plain", "of by hand", "of by hand, checks"),
        rows,
        note=f"Linux {found['kernel']}; in random order, seed {options.seed}. {streams.INTERVAL}",
    )
    own, checked = _own(KERNEL_GRE), name_by_hand(KERNEL_GRE, checked=True)
    beside = streams.said(samples, _own("vxlan"), name_by_hand("vxlan", checked=True), closely=False, digits=3)
    limited_by = f"`forward`, see By instructions; vxlan has {beside} by the same measure"
    streams.judge("gre (kernel, emulated)", samples, own, checked, streams.CHECKS, limited_by if beside else "")
    keep("emulated", {"seed": options.seed, "samples": samples})
