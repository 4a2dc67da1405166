"""Start and idle: commands, the agent's restart among endpoints, its memory and CPU with nothing to do.

While the agent is ended and started again a container is asked for echoes every 5 ms; each that is missing was lost.
It serves again when it has answered a call, and when it has attached a container.
"""

import argparse
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from netagent.lab.process import family
from netagent.v1.containers_pb2 import AttachRequest, Connection, DetachRequest
from netagent.v1.containers_pb2_grpc import ContainersStub
from netagent.v1.networks_pb2 import ListNetworksRequest
from netagent.v1.networks_pb2_grpc import NetworksStub
from tests.bench.report import draw_bars, goal, keep, median, missing, p99, say, show
from tests.support.cni import PLUGIN
from tests.support.lab import eventually
from tests.support.lone_host import NETAGENT, LoneHost

NETWORKS = 4
AT_ONCE = 8
SPARE = 10
"""Sandboxes more than there are endpoints, for restarts."""
ECHO_S = 0.005
DOCKER_SOCKET = "/run/bench-docker.sock"
DOCKERD = (
    *(
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "dockerd",
        "-H",
        f"unix://{DOCKER_SOCKET}",
    ),
    *("--data-root", "/var/lib/bench-docker", "--exec-root", "/run/bench-docker", "-p", "/run/bench-docker.pid"),
    *("--storage-driver", "vfs"),
)
LS = "netagent network ls"
Times = dict[str, list[float]]


def main(arguments: list[str]) -> None:
    """Measure and print; ``--rounds`` of each command, ``--endpoints`` when the agent is restarted."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--restarts", type=int, default=3, choices=range(1, SPARE + 1), metavar="N")
    parser.add_argument("--seconds", type=int, default=10, help="of echoes during a restart")
    parser.add_argument("--idle", type=float, default=5, help="seconds with nothing to do")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        disks = [Path(directory) / name for name in ("disk", "peer")]
        for disk in disks:
            disk.mkdir()
        with (
            LoneHost(Path(directory) / "agent.log", disk=disks[0]) as host,
            LoneHost(Path(directory) / "peer.log", disk=disks[1]) as peer,
        ):
            host.start_agent()
            agent = _Agent(host)
            idle = {"agent, no endpoints": _Idle.of([host.agent_pid], options.idle)}
            agent.fill(options.endpoints)
            among = f"{options.endpoints:,} endpoints"
            idle[f"agent, {among}"] = _Idle.of([host.agent_pid], options.idle)
            idle["its DNS process"] = _Idle.of([int(host.run("cat", "/run/netagent/dns.pid"))], options.idle)
            say("starting dockerd beside")
            docker = _start_dockerd(peer, idle, options.idle)
            say("commands")
            commands = _time_commands(host, options.rounds, peer if docker else None)
            restart = agent.restart(options.endpoints, options.restarts, options.seconds)
    report(commands, idle, restart | docker, among)


class _Idle:
    """Memory in MiB and CPU in percent of one of processes that have nothing to do."""

    def __init__(self, memory: float, percent: float) -> None:
        self.memory, self.percent = memory, percent

    @classmethod
    def of(cls, pids: list[int], seconds: float) -> "_Idle":
        time.sleep(1)
        before, begun = sum(map(_cpu_seconds, pids)), time.perf_counter()
        time.sleep(seconds)
        spent = sum(map(_cpu_seconds, pids)) - before
        return cls(sum(map(_memory_mib, pids)), spent / (time.perf_counter() - begun) * 100)


def _memory_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Agent:
    """The agent by its socket."""

    def __init__(self, host: LoneHost) -> None:
        self._host = host

    def fill(self, endpoints: int) -> None:
        """Attach so many containers, and make the namespaces of a few more."""
        host = self._host
        for number in range(NETWORKS):
            host.netagent("network", "create", "--subnet", f"10.{70 + number}.0.0/16", f"bench{number}")
        say(f"attaching {endpoints:,}")
        batch = "\n".join(f"netns add own{number}" for number in range(endpoints + SPARE))
        subprocess.run([*host.prefix, "ip", "-batch", "-"], input=batch, text=True, check=True)
        with self._channel() as channel, ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda number: self._attach(channel, number), range(endpoints)))

    def restart(self, endpoints: int, restarts: int, seconds: int) -> Times:
        """Return what a restart takes in ms until a call is answered and until a container is attached, and losses."""
        host, found = self._host, dict[str, list[float]]()
        shown = host.json("ip", "-j", "-4", "address", "show", "dev", "eth0", inside="own0")
        target = shown[0]["addr_info"][0]["local"]
        for number in range(restarts):
            say(f"restart {number + 1} of {restarts}")
            echoes = f"{seconds / ECHO_S:.0f}"
            command = [*host.prefix, "ping", "-q", "-i", str(ECHO_S), "-c", echoes, target]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ping:
                host.stop_agent()
                begun = time.perf_counter()
                host.start_agent(wait=False)
                answered = self._until(lambda channel: NetworksStub(channel).List(ListNetworksRequest()))
                found.setdefault("until it answers", []).append((answered - begun) * 1000)
                attached = self._until(lambda channel: self._attach(channel, endpoints + number))  # noqa: B023
                found.setdefault("until it has attached a container", []).append((attached - begun) * 1000)
                said = ping.communicate()[0]
            sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", said)[0])
            found.setdefault(f"packets lost meanwhile, of {sent}", []).append(sent - received)
            with self._channel() as channel:
                ContainersStub(channel).Detach(DetachRequest(name=f"own{endpoints + number}"))
        return found

    def _until(self, call: Callable[[grpc.Channel], object]) -> float:
        """Return when a call is first answered."""

        def answered() -> bool:
            try:
                with self._channel() as channel:
                    call(channel)
            except grpc.RpcError:
                time.sleep(0.005)
                return False
            return True

        deadline = time.perf_counter() + 60
        while not answered():
            if time.perf_counter() > deadline:
                raise RuntimeError("the agent does not answer after a minute")
        return time.perf_counter()

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"unix:/proc/{self._host.agent_pid}/root/run/netagent/agent.sock")

    def _attach(self, channel: grpc.Channel, number: int) -> None:
        connection = Connection(networks=[f"bench{number % NETWORKS}"], publish=[f"{10000 + number}:80"])
        request = AttachRequest(name=f"own{number}", netns=f"/run/netns/own{number}", connection=connection)
        ContainersStub(channel).Attach(request)


def _start_dockerd(host: LoneHost, idle: dict[str, _Idle], seconds: float) -> Times:
    """Start dockerd on a machine of its own, and note what it takes; it stays for its commands."""
    begun = time.perf_counter()
    try:
        daemon = host.spawn(*DOCKERD)
        command = ["curl", "-sf", "--unix-socket", DOCKER_SOCKET, "http://localhost/_ping"]
        eventually(lambda: daemon.poll() is not None or host.succeeds(*command), within=40)
        if daemon.poll() is not None:
            raise RuntimeError("it ended")
        took = (time.perf_counter() - begun) * 1000
        pids = [process.pid for process in family(lambda pid: pid == daemon.pid)]
        idle["dockerd and containerd, no containers"] = _Idle.of(pids, seconds)
    except (AssertionError, RuntimeError, OSError) as error:
        missing(f"dockerd: {error}")
        return {}
    return {"dockerd, no containers, until it answers": [took]}


def _time_commands(host: LoneHost, rounds: int, peer: LoneHost | None) -> Times:
    """Return what a call takes in ms, beside the interpreters' own start."""
    own = {
        LS: [*NETAGENT, "network", "ls"],
        "netagent --version": [*NETAGENT, "--version"],
        "python -c pass, of the same environment": [NETAGENT[2], "-c", "pass"],
        "netagent plugin, CNI VERSION": ["env", "CNI_COMMAND=VERSION", str(PLUGIN)],
        "true, a program that does nothing": ["/usr/bin/true"],
        "reference plugin bridge, CNI VERSION": ["env", "CNI_COMMAND=VERSION", "/usr/lib/cni/bridge"],
    }
    commands = {name: [*host.prefix, *command] for name, command in own.items()}
    if peer is not None:
        asked = ["docker", "-H", f"unix://{DOCKER_SOCKET}", "network", "ls"]
        commands["docker network ls"] = [*peer.prefix, *asked]
    times: Times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in tuple(commands.items()):
            begun = time.perf_counter()
            said = subprocess.run(command, input=b'{"cniVersion":"1.0.0"}', capture_output=True, check=False)
            times[name].append((time.perf_counter() - begun) * 1000)
            if said.returncode:
                missing(f"{name}: {said.stderr.decode(errors='replace').strip()[:200]}")
                del commands[name], times[name]
    return times


def report(commands: Times, idle: dict[str, _Idle], restart: Times, among: str) -> None:
    """Print the tables and keep the figures."""
    own = median(commands[LS])
    rows = [
        (name, f"{median(times) / own:.2f}", f"{median(times):.1f}", f"{p99(times):.1f}")
        for name, times in commands.items()
    ]
    show(f"Commands, {among}", ("", f"ratio to {LS}", "median ms", "p99 ms"), rows)
    draw_bars("start", f"Commands, {among}: median", "ms", {name: median(times) for name, times in commands.items()})
    base = idle["agent, no endpoints"]
    rows = [
        (name, f"{each.memory / base.memory:.2f}", f"{each.memory:.0f}", f"{each.percent:.2f}")
        for name, each in idle.items()
    ]
    show("With nothing to do", ("", "ratio of memory to the agent", "memory, MiB", "CPU, % of one"), rows)
    draw_bars("idle", "Memory with nothing to do", "MiB", {name: each.memory for name, each in idle.items()})
    restarts = [
        (name, f"{median(samples):,.0f}", ", ".join(f"{sample:,.0f}" for sample in samples))
        for name, samples in restart.items()
    ]
    show(f"Restart with {among}", ("", "median, ms", "each"), restarts)
    limits = "the profile of a start says where the time goes"
    goal(
        f"agent restart with {among}, until it answers",
        median(restart["until it answers"]),
        2000,
        "ms",
        limited_by=limits,
    )
    lost = max(max(samples) for name, samples in restart.items() if name.startswith("packets lost"))
    goal(f"agent restart with {among}, packets lost", lost, 0)
    goal(f"`{LS}`", own, 150, "ms", limited_by="the profile's imports")
    kept = {name: {"memory_mib": each.memory, "cpu_percent": each.percent} for name, each in idle.items()}
    keep("start", {"unit": "ms", "commands": commands, "idle": kept, "restart": restart})
