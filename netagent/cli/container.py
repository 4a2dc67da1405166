"""``netagent stop``, ``restart`` and ``rm``: containers by name, several at once."""

import click

from netagent.cli.client import Client
from netagent.cli.output import for_each, format_option, print_name
from netagent.errors import NotFound
from netagent.v1.containers_pb2 import RemoveContainerRequest, StartContainerRequest, StopContainerRequest

_timeout_option = click.option(
    "-t",
    "--time",
    "--timeout",
    "timeout_s",
    type=click.IntRange(-1, 2**31 - 1),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait after SIGTERM before SIGKILL; -1 for ever.",
)


_FOR_EVER = 2**32 - 1
"""Seconds, what a message can say: 136 years."""


def _patience(timeout_s: int) -> int:
    return _FOR_EVER if timeout_s < 0 else timeout_s


@click.command()
@_timeout_option
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def stop(client: Client, timeout_s: int, form: str, names: tuple[str, ...]) -> None:
    """Stop running containers."""

    def act(name: str) -> None:
        client.call(client.containers.Stop, StopContainerRequest(name=name, timeout_s=_patience(timeout_s)))
        print_name(name, form)

    for_each(client, names, act)


@click.command()
@_timeout_option
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def restart(client: Client, timeout_s: int, form: str, names: tuple[str, ...]) -> None:
    """Stop containers and start them again; fixed addresses stay."""

    def act(name: str) -> None:
        client.call(client.containers.Stop, StopContainerRequest(name=name, timeout_s=_patience(timeout_s)))
        client.call(client.containers.Start, StartContainerRequest(name=name))
        print_name(name, form)

    for_each(client, names, act)


@click.command(name="rm")
@click.option("-f", "--force", is_flag=True, help="Kill a running container; a missing one is no error.")
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def remove(client: Client, force: bool, form: str, names: tuple[str, ...]) -> None:
    """Remove containers."""

    def act(name: str) -> None:
        try:
            client.call(client.containers.Remove, RemoveContainerRequest(name=name, force=force))
        except NotFound:
            if not force:
                raise
            return
        print_name(name, form)

    for_each(client, names, act)
