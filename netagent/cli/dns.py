"""``netagent dns``: look names up as the host or one of its containers does."""

import click

from netagent.cli.client import Client
from netagent.cli.output import format_option, print_json_lines, print_table
from netagent.errors import NotFound
from netagent.v1.names_pb2 import ResolveRequest


@click.command()
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Record type.  [default: A and AAAA, or PTR]")
@click.option("--container", default="", metavar="NAME", help="Ask as this container does, not as the host.")
@format_option()
@click.argument("name")
@click.pass_obj
def dns(client: Client, types: tuple[str, ...], container: str, form: str, name: str) -> None:
    """Show what NAME, or the address NAME, stands for."""
    records = client.call(client.names.Resolve, ResolveRequest(name=name, types=types, container=container)).records
    if not records:
        raise NotFound(f"name {name} has no such records", hint="try another --type")
    if form == "json":
        print_json_lines({"Name": r.name, "Type": r.type, "TTL": r.ttl, "Data": r.data} for r in records)
        return
    print_table(("NAME", "TTL", "TYPE", "DATA"), [(r.name, str(r.ttl), r.type, r.data) for r in records])
