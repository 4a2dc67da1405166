"""DNS: answers a second of one core and the latency at half of that, beside dnsmasq in the same run.

A container asks for names of its network, and for others, which are forwarded to one more nameserver of the host: our
process at the gateway, dnsmasq (Debian's dnsmasq-base) at the host's own address, in turns. Server and load have one
CPU each. dnsmasq knows the same names from its command line, and forwards without a cache, as we do.
"""

import argparse
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.bench.report import draw_bars, keep, median, p99, say, show
from tests.support.lab import eventually

LOAD = Path(__file__).with_name("dns_load.py")
ASKER = "asker"
UPSTREAM = "198.51.100.53"
"""Of a nameserver that answers everything, on the host's loopback interface."""
RESOLV_CONF = "/run/bench-resolv.conf"
OWN, FORWARDED = "own names", "forwarded names"


def main(arguments: list[str]) -> None:
    """Measure and print; ``--rounds`` turns of twice ``--seconds`` each, ``--names`` in the network."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench dns", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--names", type=int, default=20)
    options = parser.parse_args(arguments)
    with Lab.up(f"bench{os.getpid()}", hosts=1) as lab:
        report(measure(lab.hosts[0], options.rounds, options.seconds, options.names))


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of one server: answers a second, answers in a second of its CPU time, latencies in seconds at half."""

    rate: float
    per_cpu_second: float
    delays: list[float]


def measure(host: Host, rounds: int, seconds: float, names: int) -> dict[str, dict[str, list[Round]]]:
    """Return the rounds of each server, by the kind of names."""
    host.run("netagent", "network", "create", "--subnet", "10.50.0.0/16", "bench")
    addresses = {f"n{number}": _attach(host, f"n{number}") for number in range(names)}
    _attach(host, ASKER)
    host.run("ip", "address", "add", f"{UPSTREAM}/32", "dev", "lo")
    host.run("sh", "-ec", f"echo nameserver {UPSTREAM} > {RESOLV_CONF}; mount --bind {RESOLV_CONF} /etc/resolv.conf")
    upstream = _start_dnsmasq(host, UPSTREAM, "--address=/test/192.0.2.80", "--no-resolv")
    os.sched_setaffinity(upstream, {max(os.sched_getaffinity(0))})
    records = [f"--host-record={name},{address}" for name, address in addresses.items()]
    dnsmasq = _start_dnsmasq(host, str(host.ip), f"--server={UPSTREAM}", "--cache-size=0", "--no-resolv", *records)
    own = int(host.run("cat", "/run/netagent/dns.pid").stdout)
    servers = {"netagent": (own, "10.50.0.1"), "dnsmasq": (dnsmasq, str(host.ip))}
    asked = {OWN: list(addresses), FORWARDED: [f"n{number}.test" for number in range(names)]}
    results: dict[str, dict[str, list[Round]]] = {kind: {name: [] for name in servers} for kind in asked}
    try:
        for number in range(rounds):
            for kind, questions in asked.items():
                for name, (pid, address) in servers.items():
                    say(f"turn {number + 1} of {rounds}: {name}, {kind}")
                    os.sched_setaffinity(pid, {min(os.sched_getaffinity(0))})
                    results[kind][name].append(_load(host, pid, address, seconds, questions))
    finally:
        for pid in (dnsmasq, upstream):
            os.kill(pid, signal.SIGTERM)
    return results


def _attach(host: Host, name: str) -> str:
    host.run("ip", "netns", "add", name)
    said = host.run(
        *("netagent", "attach", "--netns", f"/run/netns/{name}", "--name", name, "--network", "bench"),
        *("--format", "json"),
    )
    return str(json.loads(said.stdout)["NetworkSettings"]["Networks"]["bench"]["IPAddress"])


def _start_dnsmasq(host: Host, address: str, *options: str) -> int:
    common = ("--no-hosts", "--conf-file=/dev/null", "--bind-interfaces", "--user=root")
    pid_file = f"/run/bench-dnsmasq-{address}.pid"
    host.run("dnsmasq", *common, f"--listen-address={address}", f"--pid-file={pid_file}", *options)
    return int(eventually(lambda: host.run("cat", pid_file, check=False).stdout.strip()))


def _load(host: Host, pid: int, address: str, seconds: float, names: list[str]) -> Round:
    last = str(max(os.sched_getaffinity(0)))
    command = ("taskset", "-c", last, sys.executable, str(LOAD), address, str(seconds), *names)
    before = _cpu_seconds(pid)
    said = json.loads(host.run("nsenter", f"--net=/run/netns/{ASKER}", *command, timeout=seconds * 4 + 60).stdout)
    spent = max(_cpu_seconds(pid) - before, 1 / os.sysconf("SC_CLK_TCK"))
    return Round(said["rate"], said["answered"] / spent, said["latencies"])


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used (fields 14 and 15 of /proc/PID/stat, proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(results: dict[str, dict[str, list[Round]]]) -> None:
    """Print and keep the figures."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for kind, servers in results.items():
        rows = []
        dnsmasq = median([each.rate for each in servers["dnsmasq"]])
        figures[kind] = {}
        for name, rounds in servers.items():
            rate, per_cpu = median([each.rate for each in rounds]), median([each.per_cpu_second for each in rounds])
            delays_ms = [1000 * delay for each in rounds for delay in each.delays]
            figures[kind][name] = {
                "answers_a_second": rate,
                "answers_a_cpu_second": per_cpu,
                "p50_ms": median(delays_ms),
                "p99_ms": p99(delays_ms),
            }
            shown = (f"{median(delays_ms):.3f}", f"{p99(delays_ms):.3f}")
            rows.append((name, f"{rate / dnsmasq:.2f}", f"{rate:,.0f}", f"{per_cpu:,.0f}", *shown))
        columns = ("server", "ratio to dnsmasq", "answers/s", "answers per CPU second", "p50 at half, ms")
        show(f"DNS: {kind}, one core, 500 ms for a lost one", (*columns, "p99 at half, ms"), rows)
    for plot, title, unit, key in (
        ("dns", "DNS answers a second, one core", "a second", "answers_a_second"),
        ("dns-latency", "DNS at half of that: p99", "ms", "p99_ms"),
    ):
        groups = {kind: {name: each[key] for name, each in servers.items()} for kind, servers in figures.items()}
        draw_bars(plot, title, unit, groups)
    keep("dns", {"figures": figures})
