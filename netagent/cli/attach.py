"""``netagent attach`` and ``netagent detach``: namespaces that somebody else made."""

import click

from netagent.cli.client import Client
from netagent.cli.connection import connection_options, label_options
from netagent.cli.output import for_each, format_option, print_json_lines, print_name
from netagent.cli.shapes import container_shape
from netagent.v1.containers_pb2 import AttachRequest, Connection, DetachRequest


@click.command()
@click.option("--netns", required=True, metavar="PATH|PID", help="The network namespace, or a process in it.")
@click.option("--name", required=True, help="Name of what is connected.")
@click.option("--interface", default="", metavar="NAME", help="Name of the first interface inside.  [default: eth0]")
@connection_options
@label_options
@format_option()
@click.pass_obj
def attach(
    client: Client,
    netns: str,
    name: str,
    interface: str,
    form: str,
    connection: Connection,
    labels: dict[str, str],
) -> None:
    """Connect an existing network namespace and print the id it gets."""
    request = AttachRequest(
        name=name,
        netns=netns if netns.isdecimal() else client.path(netns),
        connection=connection,
        interface=interface,
        labels=labels,
    )
    container = client.call(client.containers.Attach, request).container
    if form == "json":
        print_json_lines([container_shape(container)])
    else:
        click.echo(container.id)


@click.command()
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def detach(client: Client, form: str, names: tuple[str, ...]) -> None:
    """Disconnect what attach has connected."""

    def act(name: str) -> None:
        client.call(client.containers.Detach, DetachRequest(name=name))
        print_name(name, form)

    for_each(client, names, act)
