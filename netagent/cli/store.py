"""``netagent store``."""

import click

from netagent.cli.client import Client
from netagent.cli.output import format_option, print_json_lines
from netagent.v1.agent_pb2 import AcceptStoreRequest, RebuildStoreRequest


@click.group()
def store() -> None:
    """Manage the cluster's store."""


@store.command()
@format_option()
@click.pass_obj
def rebuild(client: Client, form: str) -> None:
    """Write back what the store has lost and this host has in use; run it on every host that has containers.

    Prints the networks that are in the store again.
    """
    answer = client.call(client.agent.RebuildStore, RebuildStoreRequest())
    if form == "json":
        print_json_lines([{"Networks": list(answer.networks), "Claims": answer.claims}])
        return
    for name in answer.networks:
        click.echo(name)


@store.command()
@format_option()
@click.pass_obj
def accept(client: Client, form: str) -> None:
    """Belong to the cluster whose store was refused, because its etcd was replaced; print the cluster's id.

    What containers use here stays; `store rebuild` writes it into the new store.
    """
    answer = client.call(client.agent.AcceptStore, AcceptStoreRequest())
    if form == "json":
        print_json_lines([{"Cluster": answer.cluster}])
        return
    click.echo(answer.cluster)
