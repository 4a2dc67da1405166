"""``netagent publish`` and ``netagent unpublish``: ports of a container that goes on running."""

import click

from netagent.cli.bindings import bindings_of, port_map
from netagent.cli.client import Client
from netagent.cli.output import format_option, print_json_lines
from netagent.v1.containers_pb2 import InspectContainerRequest, PublishRequest, UnpublishRequest


@click.command()
@format_option()
@click.argument("name")
@click.argument("specs", nargs=-1, required=True, metavar="[[IP:]HOSTPORT:]PORT[/PROTO][@SOURCE,...]...")
@click.pass_obj
def publish(client: Client, form: str, name: str, specs: tuple[str, ...]) -> None:
    """Publish further ports of a container and show where."""
    request = PublishRequest(name=name, publish=specs)
    ports = client.call(client.containers.Publish, request).ports
    container = client.call(client.containers.Inspect, InspectContainerRequest(name=name))
    asked = {
        (p.protocol, p.container_port + index, p.host_port + index) for p in ports for index in range(p.count or 1)
    }
    shown = [b for b in bindings_of(container) if (b.protocol, b.container_port, b.host_port) in asked]
    if form == "json":
        print_json_lines([port_map(shown)])
        return
    for binding in shown:
        click.echo(f"{binding.key} -> {binding.host}{binding.limit}")


@click.command()
@click.argument("name")
@click.argument("specs", nargs=-1, required=True, metavar="[[IP:]HOSTPORT:]PORT[/PROTO][@SOURCE,...]...")
@click.pass_obj
def unpublish(client: Client, name: str, specs: tuple[str, ...]) -> None:
    """Take published ports of a container back; what is left out matches anything."""
    client.call(client.containers.Unpublish, UnpublishRequest(name=name, publish=specs))
