"""``netagent update``: the limits of containers that go on running."""

import click

from netagent.cli.client import Client
from netagent.cli.output import for_each, format_option, print_name
from netagent.v1.containers_pb2 import UpdateContainerRequest

_NONE = ("0", "none", "unlimited")


@click.command()
@click.option("--network", "--net", default="", metavar="NETWORK", help="Only in this network.")
@click.option("--rate-in", metavar="RATE", help="Limit of what they receive per network, e.g. 10mbit; none for none.")
@click.option("--rate-out", metavar="RATE", help="Limit of what they send per network, e.g. 10mbit; none for none.")
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def update(
    client: Client, network: str, rate_in: str | None, rate_out: str | None, form: str, names: tuple[str, ...]
) -> None:
    """Change the limits of containers, at once where they run."""
    if rate_in is None and rate_out is None:
        raise click.UsageError("nothing to change: give --rate-in or --rate-out")

    def act(name: str) -> None:
        request = UpdateContainerRequest(name=name, network=network, rate_in=_rate(rate_in), rate_out=_rate(rate_out))
        client.call(client.containers.Update, request)
        print_name(name, form)

    for_each(client, names, act)


def _rate(text: str | None) -> str | None:
    return "" if text in _NONE else text
