"""``make demo-runtimes``: containers of containerd, Podman, Docker and netagent in one network of three hosts."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.table import Table

from netagent.errors import NetagentError
from netagent.lab import record
from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.lab.runtimes import Containerd, Docker, Podman, write_list

NETWORK = "app"
SUBNET = "192.168.0.0/16"
_SERVE = ("httpd", "-f", "-p", "80", "-h", "/etc")
_WITHIN_S = 15.0


class Member(Protocol):
    """A container of some runtime: its ``name`` to the others, its ``runtime``, and the ``host`` it is on."""

    name: str
    runtime: str
    host: Host

    def start(self) -> None:
        """Start the runtime, if it has to be, and the container, which serves /etc on port 80."""

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of busybox in the container."""

    def remove(self) -> None:
        """End and remove the container, by its runtime."""


@dataclass(slots=True)
class OfContainerd:
    """``ctr run --cni``; ``ctr`` tells a plugin the container's namespace and its id as one word."""

    host: Host
    name: str = "default-ctr"
    runtime: str = "containerd"

    def start(self) -> None:
        """See ``Member``."""
        write_list(self.host, NETWORK)
        self._containerd.start()
        self._containerd.spawn("ctr", *_SERVE)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """See ``Member``."""
        return self._containerd.execute("ctr", *command, check=False)

    def remove(self) -> None:
        """See ``Member``."""
        self._containerd.ctr("task", "kill", "-s", "9", "ctr")

    @property
    def _containerd(self) -> Containerd:
        return Containerd(self.host)


@dataclass(slots=True)
class OfPodman:
    """``podman run --network``."""

    host: Host
    name: str = "pod"
    runtime: str = "Podman"

    def start(self) -> None:
        """See ``Member``."""
        write_list(self.host, NETWORK)
        self._podman.prepare()
        self._podman.run(self.name, "--network", NETWORK, "-p", "8080:80", command=_SERVE)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """See ``Member``."""
        return self._podman.podman("exec", self.name, *command, check=False)

    def remove(self) -> None:
        """See ``Member``."""
        self._podman.podman("rm", "--force", "--time", "0", self.name)

    @property
    def _podman(self) -> Podman:
        return Podman(self.host)


@dataclass(slots=True)
class OfDocker:
    """``docker run --network``; the network is netagent's, joined by its name."""

    host: Host
    name: str = "dock"
    runtime: str = "Docker"

    def start(self) -> None:
        """See ``Member``."""
        self.host.path("/etc/netagent/agent.toml").write_text("docker = true\n")
        self.host.agent.restart()
        self._docker.start()
        self._docker.load_image()
        meant = f"network={NETWORK}"
        options = (*self._docker.network_options, "-o", meant, "--ipam-opt", meant)
        self._docker.docker("network", "create", *options, NETWORK)
        self._docker.run(self.name, "--network", NETWORK, command=_SERVE)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """See ``Member``."""
        return self._docker.docker("exec", self.name, *command, check=False)

    def remove(self) -> None:
        """See ``Member``."""
        self._docker.docker("rm", "--force", self.name)
        self._docker.docker("network", "rm", NETWORK)

    @property
    def _docker(self) -> Docker:
        return Docker(self.host)


@dataclass(slots=True)
class OfNetagent:
    """``netagent run``."""

    host: Host
    name: str = "own"
    runtime: str = "netagent"

    def start(self) -> None:
        """See ``Member``."""
        own = ("netagent", "run", "-d", "--name", self.name, "--network", NETWORK)
        self.host.run(*own, "--", "busybox", *_SERVE)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """See ``Member``."""
        return self.host.run("netagent", "exec", self.name, "--", "busybox", *command, check=False)

    def remove(self) -> None:
        """See ``Member``."""
        self.host.run("netagent", "rm", "-f", self.name)


def start_members(lab: Lab) -> list[Member]:
    """Make the network and a container of every runtime in it, Docker's on the host of netagent's own."""
    lab.hosts[0].run("netagent", "network", "create", "--driver", "vxlan", "--subnet", SUBNET, NETWORK)
    h1, h2, h3 = lab.hosts
    members: list[Member] = [OfContainerd(h1), OfPodman(h2), OfDocker(h3), OfNetagent(h3)]
    for member in members:
        member.start()
    return members


def address_of(member: Member) -> str:
    """Return a container's address, as it sees it itself; empty while it does not run."""
    shown = member.execute("ip", "-4", "address", "show", "dev", "eth0").stdout
    found = re.search(r"inet ([\d.]+)/", shown)
    return found[1] if found else ""


def reaches(source: Member, target: Member) -> bool:
    """Tell whether ``target`` is reached from ``source`` by its name: with a ping and by HTTP.

    Asked at the gateway: ``ctr`` writes no resolv.conf.
    """
    gateway = source.execute("ip", "route", "show", "default").stdout.partition("via ")[2].split(" ")[0]
    answer = source.execute("nslookup", target.name, gateway).stdout
    found = re.findall(r"Address(?: \d+)?: ([\d.]+)$", answer, re.MULTILINE)
    if not found or found[-1] != address_of(target):
        return False
    if source.execute("ping", "-c", "1", "-W", "2", found[-1]).returncode != 0:
        return False
    return answers(source, found[-1], 80)


def answers(source: Member, address: str, port: int) -> bool:
    """Tell whether a web server answers ``source`` at an address, whatever its answer is."""
    # Not busybox's wget: linked statically, it crashes where the C library looks for the system's own modules.
    ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {address} {port}"
    return source.execute("sh", "-c", ask).stdout.startswith("HTTP/")


def _within(member: Member, target: Member) -> bool:
    """Try for a while: other hosts hear of new names a moment later."""
    deadline = time.monotonic() + _WITHIN_S
    while not reaches(member, target):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _show(lab: Lab, console: Console) -> int:
    members = start_members(lab)
    table = Table("from \\ to", *(f"{to.name}\n{to.runtime} on {to.host.name}" for to in members))
    lost = 0
    for source in members:
        cells = []
        for target in members:
            reached = source is target or _within(source, target)
            lost += not reached
            cells.append("" if source is target else address_of(target) if reached else "[red]not reached[/]")
        table.add_row(f"{source.name} ({source.runtime})", *cells)
    console.print("\nEvery container resolves, pings and fetches from every other:")
    console.print(table)
    for host in lab.hosts:
        console.print(f"[bold green]{host.name}#[/] [bold]netagent ps[/]")
        console.print(host.run("netagent", "ps").stdout.rstrip(), markup=False, highlight=False, soft_wrap=True)
    return 1 if lost else 0


def main(name: str = "demoruntimes") -> int:
    """Run the demo in the lab ``name`` and take it down again, whatever happens; return the exit status."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    console = Console()
    try:
        if name in record.names():
            Lab.open(name).down()
        with Lab.up(name, 3, 1, say=lambda line: console.print(line, highlight=False)) as lab:
            return _show(lab, console)
    except KeyboardInterrupt:
        return 130
    except (NetagentError, subprocess.SubprocessError) as error:
        console.print(f"demo failed: {error}", markup=False, soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
