"""``netagent lab``: the lab from the command line."""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import click

from netagent.cli.output import Json, complain, format_option, print_json_lines, print_table
from netagent.errors import NetagentError, NotFound
from netagent.lab import record
from netagent.lab.command import require_root
from netagent.lab.lab import Lab
from netagent.lab.layout import DEFAULT_LAB, UNDERLAYS
from netagent.lab.machine import Machine

_RUNNING = "running"
EXIT_OURS = 125
"""Status of ``lab exec`` when not the command but the lab failed, as Docker has it; nsenter adds 126 and 127."""

_lab_option = click.option("--lab", "name", default=DEFAULT_LAB, show_default=True, help="Which lab.")


@click.group()
def lab() -> None:
    """Run a cluster of hosts on this machine, in namespaces."""


@lab.command()
@_lab_option
@click.option("--hosts", type=int, default=3, show_default=True, help="How many hosts: h1, h2, ...")
@click.option("--etcd", type=int, default=1, show_default=True, help="How many members of etcd, 1 or 3.")
@click.option(
    "--mtu", type=int, default=1500, show_default=True, help="MTU of the network between the hosts, in bytes."
)
@click.option(
    "--underlay",
    type=click.Choice(UNDERLAYS),
    default="both",
    show_default=True,
    help="Between the hosts: IPv4 and IPv6, IPv6 alone, or both through Open vSwitch.",
)
@click.option("--no-agent", is_flag=True, help="Leave it to you to start agents.")
@format_option()
def up(name: str, hosts: int, etcd: int, mtu: int, underlay: str, no_agent: bool, form: str) -> None:
    """Make a lab: hosts, their network, etcd and agents."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    made = Lab.up(
        name,
        hosts,
        etcd,
        agents=not no_agent,
        mtu=mtu,
        underlay=underlay,
        say=lambda line: click.echo(line, err=True),
    )
    if form == "json":
        print_json_lines([_describe(made)])
    else:
        option = "" if name == DEFAULT_LAB else f"--lab {name} "
        click.echo(f"try:  netagent lab exec {option}h1 -- netagent network ls")
        click.echo(f"end:  netagent lab down {option}".rstrip())


# Options end with the host's name: what follows is the command, dashes and all.
@lab.command(name="exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@_lab_option
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def execute(name: str, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND on a host of a lab.

    In the host's root directory, with its files and its network. Ends with the command's own status, or with 125 if
    the lab or the host is not there.
    """
    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise click.UsageError("no command given after --")
    try:
        require_root()
        machine = Lab.open(name).host(host)
        entry = machine.command(argv)
    except NetagentError as error:
        complain(error)
        sys.exit(EXIT_OURS)
    # The command takes our place: its terminal, its input and its status are nobody else's.
    os.execvpe(entry[0], entry, machine.environment())  # noqa: S606 - it is a list, no shell is wanted


@lab.command()
@_lab_option
def down(name: str) -> None:
    """Take a lab down and leave nothing of it.

    Ends its processes and containers, removes its namespaces and files. A lab that is not there is no error.
    """
    require_root()
    try:
        found = Lab.open(name)
    except NotFound:
        click.echo(f"no lab named {name!r}, nothing to do", err=True)
        return
    found.down()
    click.echo(f"lab {name}: down", err=True)


@lab.command(name="ls")
@format_option()
def list_labs(form: str) -> None:
    """List the labs of this machine."""
    found = []
    for name in record.names():
        with suppress(NotFound):  # taken down by somebody else, just now
            found.append(_describe(Lab.open(name)))
    if form == "json":
        print_json_lines(found)
        return
    print_table(["LAB", "HOSTS", "AGENTS", "ETCD", "MTU", "DIRECTORY"], map(_columns, found))


def _columns(entry: Json) -> list[str]:
    agents = sum(host["agent"] == _RUNNING for host in entry["hosts"])
    return [
        entry["lab"],
        str(len(entry["hosts"])),
        str(agents),
        str(len(entry["etcd"])),
        str(entry["mtu"]),
        entry["directory"],
    ]


def _describe(found: Lab) -> Json:
    return {
        "lab": found.name,
        "mtu": found.layout.mtu,
        "underlay": found.layout.underlay,
        "directory": str(found.directory),
        "store": found.layout.store_url,
        "etcd": [_place(etcd) | {"etcd": _state(running=etcd.running)} for etcd in found.etcd],
        "hosts": [
            _place(host)
            | {
                "address6": str(host.seat.ipv6),
                "agent": _state(running=host.agent.running),
                "agent_log": str(host.agent.log),
            }
            for host in found.hosts
        ],
    }


def _place(machine: Machine) -> dict[str, str]:
    return {"name": machine.name, "address": str(machine.ip), "netns": machine.seat.netns}


def _state(*, running: bool) -> str:
    return _RUNNING if running else "stopped"


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Leave on a signal by unwinding, so that a half-made lab is taken down."""
    sys.exit(128 + number)
