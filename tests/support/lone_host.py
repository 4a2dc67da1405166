"""A throw-away machine of its own for one real agent with its embedded store: own network, mounts and host name.

``/run`` and ``/var/lib`` are empty there, so every program finds its files at the usual paths. Its interface ``lan0``
(198.18.0.1) leads to the namespace ``lan`` (198.18.0.2), which stands for all other machines.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.cni import Plugin
from tests.support.lab import eventually

ADDRESS = "198.18.0.1"
LAN_ADDRESS = "198.18.0.2"
ROOT = Path(__file__).parents[2]
NETAGENT = ("env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "netagent")

BOOT = """
mount --make-rprivate /
mount -t tmpfs tmpfs /run
if [ "$disk" ]; then mount --bind "$disk" /var/lib; else mount -t tmpfs tmpfs /var/lib; fi
mkdir -p /run/netns
hostname lone
ip link set lo up
ip netns add lan
ip link add lan0 type veth peer name eth0 netns lan
ip address add 198.18.0.1/24 dev lan0
ip link set lan0 up
ip -n lan address add 198.18.0.2/24 dev eth0
ip -n lan link set lo up
ip -n lan link set eth0 up
ip route add default via 198.18.0.2
"""
"""What makes a machine of new namespaces, as text for ``sh -e``."""


class LoneHost:
    """The machine and its agent. As a context manager it ends what runs there, and with that it is gone.

    ``disk`` is an empty directory for ``/var/lib``; without it that is in memory. ``options`` are the agent's.
    """

    def __init__(self, log: Path, *, disk: Path | None = None, options: Sequence[str] = ()) -> None:
        self.log = log
        self.options = options
        self._agent: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []
        self._init = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-ec", f"{BOOT}\necho ready\nexec sleep infinity"],
            stdout=subprocess.PIPE,
            env={**os.environ, "disk": str(disk or "")},
            start_new_session=True,  # Ctrl-C reaches it by us, who need its directories to clean up
        )
        assert self._init.stdout is not None
        try:
            ready = self._init.stdout.readline() == b"ready\n"
        except BaseException:
            self._init.kill()
            raise
        if not ready:
            raise RuntimeError("the machine did not come up")
        self.prefix = ("nsenter", f"--target={self._init.pid}", "--net", "--mount", "--uts", "--")
        self.plugin = Plugin(prefix=self.prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent and everything else that was started here."""
        if self._agent is not None:
            try:
                self.stop_agent()
            except subprocess.TimeoutExpired:
                self.kill_agent()
        self._end_name_server()
        for process in (*self._others, self._init):
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def run(self, *command: str, inside: str = "", check: bool = True) -> str:
        """Run a command, in the named namespace if ``inside`` is given, and return its standard output."""
        done = subprocess.run(self._command(command, inside), capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def succeeds(self, *command: str, inside: str = "") -> bool:
        """Tell whether a command succeeds."""
        return subprocess.run(self._command(command, inside), capture_output=True, timeout=60).returncode == 0

    def spawn(self, *command: str, inside: str = "") -> "subprocess.Popen[bytes]":
        """Start a command that is ended with the machine, if not before."""
        process = subprocess.Popen(self._command(command, inside), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._others.append(process)
        return process

    def _command(self, command: Sequence[str], inside: str) -> list[str]:
        # Not `ip netns exec`, which would mount its own /sys and so needs more than a program here may have.
        return [*self.prefix, *(("nsenter", f"--net=/run/netns/{inside}", "--") if inside else ()), *command]

    def json(self, *command: str, inside: str = "") -> Any:
        """Return what a command prints as JSON."""
        return json.loads(self.run(*command, inside=inside) or "[]")

    def netagent(self, *arguments: str) -> str:
        """Run the command line."""
        return self.run(*NETAGENT, *arguments)

    # The agent

    def start_agent(self, *, wait: bool = True, through: Sequence[str] = ()) -> None:
        """Start the agent with its ``options``, by a command that is given if any, and wait until it serves CNI."""
        with self.log.open("ab") as log:
            command = [*self.prefix, *through, *NETAGENT, "agent", *self.options]
            self._agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            eventually(self.serves)

    @property
    def agent_pid(self) -> int:
        """The agent's process."""
        assert self._agent is not None
        return self._agent.pid

    def serves(self) -> bool:
        """Tell whether the agent listens for the plugin and for the command line."""
        assert self._agent is not None
        assert self._agent.poll() is None, self.log.read_text()[-4000:]
        listening = self.run("ss", "-xlH")
        return "/run/netagent/cni.sock" in listening and "/run/netagent/agent.sock" in listening

    def kill_agent(self) -> None:
        """End the agent as a crash does."""
        self._end_agent(signal.SIGKILL)

    def stop_agent(self) -> None:
        """End the agent as an operator does."""
        self._end_agent(signal.SIGTERM)

    def _end_agent(self, number: signal.Signals) -> None:
        assert self._agent is not None
        self._agent.send_signal(number)
        self._agent.wait(timeout=60)
        self._agent = None

    def _end_name_server(self) -> None:
        """End the DNS process, which outlives the agent."""
        noted = Path(f"/proc/{self._init.pid}/root/run/netagent/dns.pid")
        if noted.exists():
            os.kill(int(noted.read_text()), signal.SIGKILL)

    # Containers' namespaces

    def make_netns(self, name: str) -> str:
        """Make a network namespace and return its path."""
        self.run("ip", "netns", "add", name)
        return f"/run/netns/{name}"

    def remove_netns(self, name: str) -> None:
        """Remove a network namespace; one that is gone is no error."""
        self.succeeds("ip", "netns", "delete", name)

    def ping(self, target: str, *, inside: str = "") -> bool:
        """Tell whether one echo request is answered within a second."""
        return self.succeeds("ping", "-c1", "-W1", target, inside=inside)

    def serve_text(self, text: str, port: int, *, inside: str) -> None:
        """Answer every TCP connection with ``text`` at a port; returns once it listens."""
        self.spawn("socat", f"TCP-LISTEN:{port},fork,reuseaddr", f"SYSTEM:echo {text}", inside=inside)
        eventually(lambda: f":{port} " in self.run("ss", "-tlnH", inside=inside))

    def fetch(self, address: str, port: int, *, inside: str = "") -> str:
        """Return what is read from a TCP port, empty if there is no connection within two seconds."""
        return self.run(
            "socat", "-u", f"TCP:{address}:{port},connect-timeout=2", "-", inside=inside, check=False
        ).strip()

    def links(self) -> list[dict[str, Any]]:
        """Return the machine's interfaces as iproute2 shows them."""
        links = self.json("ip", "-j", "link", "show")
        assert isinstance(links, list)
        return links

    def dump(self) -> dict[str, Any]:
        """Return what the machine's kernel and journal hold, without what changes by itself."""
        # Links that were detached wait in a group for their deletion.
        eventually(lambda: all(link["group"] == "default" for link in self.links()))
        return {
            "links": sorted(link["ifname"] for link in self.links()),
            "addresses": _lasting(self.run("ip", "-o", "address")),
            "routes": _lasting(self.run("ip", "route", "show", "table", "all")),
            "firewall": self.run("nft", "-s", "list", "ruleset"),
            "listening": sorted(self.run("ss", "-tulnH").splitlines()),
            "containers": [
                {key: row[key] for key in ("ID", "Names", "Networks", "Ports", "State")}
                for row in map(json.loads, self.netagent("ps", "-a", "--no-trunc", "--format", "json").splitlines())
            ],
        }


def _lasting(listing: str) -> list[str]:
    """Return the lines of a listing without what the kernel adds some time after a change."""
    lines = (line.replace(" linkdown", "") for line in listing.splitlines())
    return [line for line in lines if "fe80:" not in line and "ff00:" not in line]
