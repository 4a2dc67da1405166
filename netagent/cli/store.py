"""``netagent store``."""

import json
from typing import TextIO

import click

from netagent.cli.client import Client
from netagent.cli.output import format_option, print_json_lines
from netagent.errors import InvalidRequest
from netagent.v1.agent_pb2 import (
    AcceptStoreRequest,
    ExportStoreRequest,
    ImportStoreRequest,
    RebuildStoreRequest,
    StoreRecord,
)

VERSION = 1
"""Of what `store export` writes."""


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


@store.command()
@click.option("-o", "--output", type=click.File("w", lazy=True), default="-", help="File to write.  [default: stdout]")
@click.pass_obj
def export(client: Client, output: TextIO) -> None:
    """Write the networks across hosts, the claims in them and the hosts, as JSON: a backup of the cluster's store."""
    answer = client.call(client.agent.ExportStore, ExportStoreRequest())
    # Records are text; bytes that are not come through as they are.
    records = {record.key: record.value.decode(errors="surrogateescape") for record in answer.records}
    content = {"version": VERSION, "cluster": answer.cluster, "revision": answer.revision, "records": records}
    output.write(json.dumps(content, indent=1) + "\n")


@store.command(name="import")
@click.option("-f", "--force", is_flag=True, help="Add to a store that is not empty; nothing there is overwritten.")
@format_option()
@click.argument("file", type=click.Path(allow_dash=True), required=False)
@click.pass_obj
def import_store(client: Client, force: bool, form: str, file: str | None) -> None:
    """Write what `store export` wrote into FILE into the cluster's store, which must be empty.

    Without FILE, move there the networks across hosts that this host had before it joined the cluster. Prints the
    networks that are in the store now.
    """
    request = ImportStoreRequest(own=file is None, force=force, records=() if file is None else _records(file))
    answer = client.call(client.agent.ImportStore, request)
    for key in answer.kept:
        click.echo(f"WARNING: {key} is otherwise in the store, and stays so", err=True)
    if form == "json":
        kept = list(answer.kept)
        print_json_lines([{"Networks": list(answer.networks), "Records": answer.records, "Kept": kept}])
        return
    for name in answer.networks:
        click.echo(name)


def _records(file: str) -> list[StoreRecord]:
    try:
        with click.open_file(file) as content:
            read = json.load(content)
        if read["version"] != VERSION:
            raise InvalidRequest(f"{file} is of version {read['version']}", hint=f"this netagent reads {VERSION}")
        return [StoreRecord(key=k, value=v.encode(errors="surrogateescape")) for k, v in read["records"].items()]
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidRequest(f"{file} is no copy of a store", hint="give what `netagent store export` wrote") from error
