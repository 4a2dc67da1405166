"""Start and idle: the command line, the agent's restart with endpoints, its memory and CPU with nothing to do.

While the agent is ended and started again a container is asked for echoes every 5 ms; each that is missing was lost.
"""

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import grpc

from netagent.v1.containers_pb2 import AttachRequest, Connection
from netagent.v1.containers_pb2_grpc import ContainersStub
from tests.bench.report import keep, median, p99, show
from tests.support.cni import PLUGIN
from tests.support.lone_host import NETAGENT, LoneHost

NETWORKS = 4
IDLE_S = 3.0
ECHOES = 4000


def main(arguments: list[str]) -> None:
    """Measure and print; ``--rounds`` of each command, ``--endpoints`` when the agent is restarted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--endpoints", type=int, default=1000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        disk = Path(directory) / "disk"
        disk.mkdir()
        with LoneHost(Path(directory) / "agent.log", disk=disk) as host:
            host.start_agent()
            report(measure_commands(host, options.rounds), measure_agent(host, options.endpoints))


def measure_commands(host: LoneHost, rounds: int) -> dict[str, list[float]]:
    """Return what a call takes in ms, beside the interpreters' own start."""
    commands = {
        "netagent network ls": [*NETAGENT, "network", "ls"],
        "python -c pass, of the same environment": [NETAGENT[2], "-c", "pass"],
        "plugin, CNI VERSION": ["env", "CNI_COMMAND=VERSION", str(PLUGIN)],
        "/usr/bin/python3 -IS -c pass": ["/usr/bin/python3", "-IS", "-c", "pass"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(
                [*host.prefix, *command],
                input=b'{"cniVersion":"1.0.0"}',
                stdout=subprocess.DEVNULL,
                check=True,
            )
            times[name].append((time.perf_counter() - begun) * 1000)
    return times


def measure_agent(host: LoneHost, endpoints: int) -> dict[str, float]:
    """Return figures of the agent by what they are, times in ms, memory in MiB, CPU in percent of one."""
    figures = {"memory, no endpoints, MiB": _memory_mib(host), "CPU, no endpoints, %": _idle_percent(host)}
    for number in range(NETWORKS):
        host.netagent("network", "create", "--subnet", f"10.{70 + number}.0.0/16", f"bench{number}")
    containers = ContainersStub(grpc.insecure_channel(f"unix:/proc/{host.agent_pid}/root/run/netagent/agent.sock"))
    for number in range(endpoints):
        path = host.make_netns(f"own{number}")
        connection = Connection(networks=[f"bench{number % NETWORKS}"], publish=[f"{10000 + number}:80"])
        containers.Attach(AttachRequest(name=f"own{number}", netns=path, connection=connection))
    figures[f"memory, {endpoints} endpoints, MiB"] = _memory_mib(host)
    figures[f"CPU, {endpoints} endpoints, %"] = _idle_percent(host)
    target = host.json("ip", "-j", "-4", "address", "show", "dev", "eth0", inside="own0")[0]["addr_info"][0]["local"]
    command = [*host.prefix, "ping", "-q", "-i", "0.005", "-c", str(ECHOES), target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ping:
        host.stop_agent()
        begun = time.perf_counter()
        host.start_agent(wait=False)
        while not host.serves():
            time.sleep(0.01)
        figures[f"restart with {endpoints} endpoints until it serves, ms"] = (time.perf_counter() - begun) * 1000
        said = ping.communicate()[0]
    sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", said)[0])
    figures[f"packets lost meanwhile, of {sent}"] = sent - received
    return figures


def _memory_mib(host: LoneHost) -> float:
    status = Path(f"/proc/{host.agent_pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def _idle_percent(host: LoneHost) -> float:
    time.sleep(1)
    before = _cpu_seconds(host.agent_pid)
    time.sleep(IDLE_S)
    return (_cpu_seconds(host.agent_pid) - before) / IDLE_S * 100


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(commands: dict[str, list[float]], agent: dict[str, float]) -> None:
    """Print the tables and keep the figures."""
    rows = [(name, f"{median(times):.1f}", f"{p99(times):.1f}") for name, times in commands.items()]
    show("start of commands", ("", "median ms", "p99 ms"), rows)
    show("the agent", ("", "figure"), [(name, f"{value:,.1f}") for name, value in agent.items()])
    keep("start", {"unit": "ms", "commands": commands, "agent": agent})
