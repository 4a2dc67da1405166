"""``make demo``: the main job once, on three hosts, with real containers and real packets."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from netagent.errors import NetagentError
from netagent.lab import record
from netagent.lab.host import Host
from netagent.lab.lab import Lab

_NETWORK = "staticnet"
_SUBNET = "192.168.0.0/16"
_WEB_ADDRESS = "192.168.0.2"
_WEB_PORT = 4000
_PINGS = 5
_COMMAND_WITHIN_S = 60.0
_HEARD_WITHIN_S = 30.0

_PAGE = "Hello from the container web"
# The page is written where the container may write: into its own layer above the host's files.
_SERVE = f'mkdir -p /tmp/www; echo "{_PAGE}" > /tmp/www/index.html; exec busybox httpd -f -p 80 -h /tmp/www'

_NEXT = f"""[bold]What to try next[/bold]
  {{netagent}} lab up --hosts 3        the same three hosts, to stay
  {{netagent}} lab exec h1 -- bash     a shell on one of them, with netagent on its PATH; there:
      netagent network create --driver vxlan --subnet {_SUBNET} {_NETWORK}
      netagent run -it --network {_NETWORK} -- bash
  {{netagent}} lab down                and nothing is left behind
  make test                                 all tests
"""


class DemoFailed(Exception):
    """The demo showed something that must not be; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of the demo: on which host, under which address."""

    name: str
    host: Host
    address: IPv4Address


class Demo:
    """The steps of the demo, in the order of the methods."""

    def __init__(self, lab: Lab, console: Console) -> None:
        self._lab = lab
        self._console = console

    def run(self) -> None:
        """Show everything; DemoFailed at the first thing that is not as it should be."""
        self._title("A network across all hosts")
        create = ["network", "create", "--driver", "vxlan", "--subnet", _SUBNET, _NETWORK]
        self._netagent(self._lab.host("h1"), *create)
        self._title("Containers on every host, one with a fixed address and a published port")
        containers = self._start_containers()
        self._title("Every container pings every other by name: round trip in milliseconds")
        self._ping_all(containers)
        self._title(f"Port {_WEB_PORT} of h1 leads to port 80 of the container web")
        self._fetch_page()
        self._title("What there is now")
        self._show_state()

    def _start_containers(self) -> list[Container]:
        web = ["--ip", _WEB_ADDRESS, "-p", f"{_WEB_PORT}:80"]
        started = [self._start("web", self._lab.hosts[0], web, ["sh", "-c", _SERVE])]
        for number, host in enumerate(self._lab.hosts, start=1):
            started.append(self._start(f"c{number}", host, [], ["sleep", "1000"]))
        if str(started[0].address) != _WEB_ADDRESS:
            raise DemoFailed(f"web has {started[0].address} instead of the address asked for, {_WEB_ADDRESS}")
        return started

    def _start(self, name: str, host: Host, options: Sequence[str], command: Sequence[str]) -> Container:
        run = ["netagent", "run", "-d", "--name", name, "--network", _NETWORK, *options, "--", *command]
        # Other hosts hear of a new network a little later.
        self._shown(host, *run, patience_for=f"network {_NETWORK} not found")
        shown = self._quietly(host, "netagent", "exec", name, "--", "ip", "-json", "-4", "address", "show", "eth0")
        address = IPv4Address(json.loads(shown)[0]["addr_info"][0]["local"])
        return Container(name=name, host=host, address=address)

    def _ping_all(self, containers: Sequence[Container]) -> None:
        table = Table("from \\ to", *(f"{to.name} on {to.host.name}\n{to.address}" for to in containers))
        lost = []
        for source in containers:
            cells = []
            for target in containers:
                if source is target:
                    cells.append("")
                    continue
                answered, round_trip_ms = self._ping(source, target)
                cells.append(f"{round_trip_ms:.3f}" if answered == _PINGS else f"{answered} of {_PINGS}")
                if answered < _PINGS:
                    lost.append(f"{source.name} to {target.name}: {_PINGS - answered} of {_PINGS}")
            table.add_row(f"{source.name} on {source.host.name}", *cells)
        self._console.print(table)
        if lost:
            raise DemoFailed("pings were lost: " + "; ".join(lost))

    def _ping(self, source: Container, target: Container) -> tuple[int, float]:
        """Return how many pings, by name, were answered and their mean round trip in ms."""
        ping = ["ping", "-q", "-c", str(_PINGS), "-i", "0.05", "-W", "2", target.name]
        deadline = time.monotonic() + _HEARD_WITHIN_S
        while True:
            said = source.host.run("netagent", "exec", source.name, "--", *ping, check=False, timeout=_COMMAND_WITHIN_S)
            answered = re.search(r"(\d+) received", said.stdout)
            # Other hosts hear of a new name, and of a host's first container, a little later.
            if (answered and int(answered[1]) == _PINGS) or time.monotonic() > deadline:
                break
        if answered is None:
            raise DemoFailed(f"ping did not run in {source.name}: {said.stderr.strip()}")
        round_trip = re.search(r"= [\d.]+/([\d.]+)/", said.stdout)
        return int(answered[1]), float(round_trip[1]) if round_trip else 0.0

    def _fetch_page(self) -> None:
        first, second = self._lab.hosts[0], self._lab.hosts[1]
        web = f"{first.ip}:{_WEB_PORT}"
        curl = ["curl", "--silent", "--show-error", "--max-time", "20"]
        for host, command in (
            (second, [*curl, f"http://{web}/"]),
            (first, [*curl, f"http://127.0.0.1:{_WEB_PORT}/"]),
            (second, ["netagent", "exec", "c2", "--", *curl, f"http://{web}/"]),
        ):
            page = self._shown(host, *command).strip()
            if page != _PAGE:
                raise DemoFailed(f"{command[-1]} answered {page!r} on {host.name}")

    def _show_state(self) -> None:
        first = self._lab.hosts[0]
        self._netagent(first, "network", "ls")
        for host in self._lab.hosts:
            self._netagent(host, "ps")
        self._netagent(first, "host", "ls")
        self._show_blocks(json.loads(self._quietly(first, "netagent", "network", "inspect", _NETWORK))[0]["Blocks"])

    def _show_blocks(self, blocks: Sequence[dict[str, Any]]) -> None:
        table = Table(
            "block", "host", "host's own address", "in use", title=f"Blocks of {_NETWORK}", title_justify="left"
        )
        for block in blocks:
            table.add_row(block["Prefix"], block["Host"], block["OwnAddress"], str(block["IPsInUse"]))
        self._console.print(table)

    def _netagent(self, host: Host, *arguments: str) -> str:
        return self._shown(host, "netagent", *arguments)

    def _shown(self, host: Host, *argv: str, patience_for: str = "") -> str:
        """Run a command as a user would, and show both the command and what it says."""
        self._console.print(f"[bold green]{host.name}#[/] [bold]{_escape(shlex.join(argv))}[/]", soft_wrap=True)
        said = self._quietly(host, *argv, patience_for=patience_for)
        if said.strip():
            self._console.print(said.rstrip(), markup=False, highlight=False, soft_wrap=True)
        return said

    def _quietly(self, host: Host, *argv: str, patience_for: str = "") -> str:
        """Run a command, again for a while if what it says is ``patience_for``, and return what it prints."""
        deadline = time.monotonic() + _HEARD_WITHIN_S
        while True:
            done = host.run(*argv, check=False, timeout=_COMMAND_WITHIN_S)
            is_worth_a_wait = patience_for and patience_for in done.stderr
            if not (done.returncode and is_worth_a_wait) or time.monotonic() > deadline:
                break
        if done.returncode != 0:
            raise DemoFailed(f"{shlex.join(argv)} on {host.name} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def _title(self, text: str) -> None:
        self._console.print(f"\n[bold cyan]{text}[/]")


def main(name: str = "demo") -> int:
    """Run the demo in the lab ``name`` and take it down again, whatever happens; return the exit status."""
    signal.signal(signal.SIGTERM, _leave)
    console = Console()
    begun = time.monotonic()
    try:
        _remove_leftover(name, console)
        with Lab.up(name, 3, 1, say=lambda line: console.print(line, highlight=False)) as lab:
            try:
                Demo(lab, console).run()
            finally:
                console.print("\nTaking everything down", highlight=False)
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left behind")
        return 130
    except (DemoFailed, NetagentError, subprocess.TimeoutExpired) as error:
        console.print(f"[bold red]demo failed:[/] {_escape(str(error))}", soft_wrap=True)
        return 1
    console.print(f"Done after {time.monotonic() - begun:.0f} s, nothing is left behind.\n", highlight=False)
    sudo = "sudo " if "SUDO_USER" in os.environ else ""
    console.print(_NEXT.format(netagent=f"{sudo}.venv/bin/netagent"), highlight=False, soft_wrap=True)
    return 0


def _remove_leftover(name: str, console: Console) -> None:
    """Take down what a demo left that was killed: it cannot have been kept on purpose."""
    if name in record.names():
        console.print("taking down what an earlier demo left", highlight=False)
        Lab.open(name).down()


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
