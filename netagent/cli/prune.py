"""``netagent network prune``."""

import sys

import click

from netagent.cli.client import Client
from netagent.cli.filters import is_builtin, prune_filter
from netagent.cli.output import complain, format_option, print_json_lines
from netagent.errors import Conflict, NetagentError, NotFound
from netagent.v1.networks_pb2 import ListNetworksRequest, RemoveNetworkRequest

_WARNING = "WARNING! This will remove all custom networks not used by at least one container."
_QUESTION = "Are you sure you want to continue? [y/N] "


@click.command()
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="K=V", help="Only those that match: label, label!, until.")
@format_option()
@click.pass_obj
def prune(client: Client, force: bool, filters: tuple[str, ...], form: str) -> None:
    """Remove all networks that no container is connected to."""
    matches = prune_filter(filters)
    if not force:
        click.echo(_WARNING)
        click.echo(_QUESTION, nl=False)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise NetagentError("network prune has been cancelled")
    networks = client.call(client.networks.List, ListNetworksRequest()).networks
    has_failed = False
    removed: list[str] = []
    for network in networks:
        if is_builtin(network) or network.used_by or not matches(network):
            continue
        try:
            for _ in client.stream(client.networks.Remove, RemoveNetworkRequest(name=network.id)):
                pass
        except (Conflict, NotFound):
            continue  # A container came, or somebody else was quicker.
        except NetagentError as error:
            complain(error)
            has_failed = True
        else:
            removed.append(network.name)
    if form == "json":
        print_json_lines([{"NetworksDeleted": removed}])
    elif removed:
        click.echo("\n".join(("Deleted Networks:", *removed, "")))
    if has_failed:
        raise click.exceptions.Exit(1)
