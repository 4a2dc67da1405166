"""``netagent inspect``: containers and networks by name or id."""

import click

from netagent.cli.client import Client
from netagent.cli.output import Json, print_found, template_option
from netagent.cli.shapes import container_shape, network_shape
from netagent.errors import NotFound
from netagent.v1.containers_pb2 import InspectContainerRequest
from netagent.v1.networks_pb2 import InspectNetworkRequest


@click.command()
@template_option("json", flags=("-f",))
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(client: Client, form: str, names: tuple[str, ...]) -> None:
    """Show all of containers or, where no container has the name, of networks."""
    print_found(names, lambda name: _inspect(client, name), form)


def _inspect(client: Client, name: str) -> Json:
    try:
        return container_shape(client.call(client.containers.Inspect, InspectContainerRequest(name=name)))
    except NotFound:
        pass
    try:
        return network_shape(client.call(client.networks.Inspect, InspectNetworkRequest(name=name)))
    except NotFound:
        raise NotFound(f"No such object: {name}", hint="netagent ps -a and network ls show those there are") from None
