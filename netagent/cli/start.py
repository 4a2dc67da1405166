"""``netagent start``: stopped containers, with -a one of them in the foreground."""

import asyncio
import signal

import click

from netagent.cli.client import Client
from netagent.cli.logs import Printer, ended, log_of, print_all
from netagent.cli.output import for_each, format_option, print_name
from netagent.errors import Conflict, NotFound
from netagent.runtime.logs import follow
from netagent.v1.containers_pb2 import (
    Container,
    InspectContainerRequest,
    KillContainerRequest,
    StartContainerRequest,
)

_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


@click.command()
@click.option("-a", "--attach", is_flag=True, help="Show its output, pass signals on, and end with its exit status.")
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def start(client: Client, attach: bool, form: str, names: tuple[str, ...]) -> None:
    """Start stopped containers; fixed addresses are as before."""
    if attach:
        if len(names) > 1:
            raise click.UsageError("you cannot start and attach multiple containers at once")
        client.require_local("start -a")
        container = client.call(client.containers.Inspect, InspectContainerRequest(name=names[0]))
        raise click.exceptions.Exit(asyncio.run(_start_attached(client, container)))

    def act(name: str) -> None:
        client.call(client.containers.Start, StartContainerRequest(name=name))
        print_name(name, form)

    for_each(client, names, act)


async def _start_attached(client: Client, container: Container) -> int:
    """Start a container and print what it logs; return its exit status.

    Its output comes by way of the log, for its monitor, which we could connect to, is only made with the start.
    """
    loop = asyncio.get_running_loop()
    end = loop.create_future()
    records = follow(log_of(container), until=end, tail=0)
    printing = asyncio.create_task(print_all(records, Printer()))
    await asyncio.sleep(0)  # The log is now open at its end; what comes from here on is of this start.
    await asyncio.to_thread(client.call, client.containers.Start, StartContainerRequest(name=container.id))
    for number in _FORWARDED:
        loop.add_signal_handler(number, _forward, client, container.id, number)
    code = await ended(client, container.id)
    end.set_result(None)
    await printing
    return 0 if code is None else code


def _forward(client: Client, container_id: str, number: int) -> None:
    try:
        client.call(client.containers.Kill, KillContainerRequest(name=container_id, signal=number))
    except (NotFound, Conflict):
        return
