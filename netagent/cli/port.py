"""``netagent port``."""

import click

from netagent.cli.bindings import bindings_of, port_map
from netagent.cli.client import Client
from netagent.cli.output import format_option, print_json_lines
from netagent.errors import InvalidRequest, NotFound
from netagent.model.port import PROTOCOLS
from netagent.v1.containers_pb2 import InspectContainerRequest


@click.command()
@format_option()
@click.argument("name")
@click.argument("private_port", metavar="[PORT[/PROTO]]", required=False)
@click.pass_obj
def port(client: Client, form: str, name: str, private_port: str | None) -> None:
    """Show where a container's ports are published, or one of them."""
    key = None if private_port is None else _parse_key(private_port)
    container = client.call(client.containers.Inspect, InspectContainerRequest(name=name))
    bindings = [binding for binding in bindings_of(container) if key in (None, binding.key)]
    if key is not None and not bindings:
        raise NotFound(f"no public port '{key}' published for {name}", hint=f"netagent port {name} shows what is")
    if form == "json":
        print_json_lines([port_map(bindings)])
        return
    for binding in bindings:
        host = f"{binding.host}{binding.limit}"
        click.echo(host if key is not None else f"{binding.key} -> {host}")


def _parse_key(text: str) -> str:
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if not (number.isdecimal() and number.isascii()) or not 1 <= int(number) <= 65535 or protocol not in PROTOCOLS:
        raise InvalidRequest(f"invalid port: {text}", hint="for example 80, 80/tcp or 53/udp")
    return f"{int(number)}/{protocol}"
