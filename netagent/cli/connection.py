"""The options of ``run`` and ``attach`` that say how a container is to be connected."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from netagent.v1.containers_pb2 import Connection

_LIMITS = (
    click.option("--rate-in", default="", metavar="RATE", help="Limit of what it receives per network, e.g. 10mbit."),
    click.option("--rate-out", default="", metavar="RATE", help="Limit of what it sends per network, e.g. 10mbit."),
)

_OPTIONS = (
    click.option(
        "--network",
        "--net",
        "networks",
        multiple=True,
        metavar="NETWORK",
        help="Network to connect to, several times for several; or host, none, container:NAME.  [default: bridge]",
    ),
    click.option("--ip", "--ip6", "addresses", multiple=True, metavar="IP", help="Fixed address in the first network."),
    click.option("--mac-address", default="", metavar="MAC", help="MAC address in the first network."),
    click.option(
        "--network-alias", "--net-alias", "--alias", "aliases", multiple=True, help="Further name in the networks."
    ),
    click.option(
        "-p",
        "--publish",
        multiple=True,
        metavar="[[IP:]HOSTPORT:]PORT[/PROTO][@SOURCE,...]",
        help="Publish a port or a range of ports on the host, for all or for the sources alone.",
    ),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports on free ports of the host."),
    click.option("--expose", multiple=True, metavar="PORT[-END][/PROTO]", help="Port that the container serves."),
    *_LIMITS,
)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to ``command``, which gets them as one value, ``connection``."""

    @wraps(command)
    def gathering(
        *args: Any,
        networks: tuple[str, ...],
        addresses: tuple[str, ...],
        mac_address: str,
        aliases: tuple[str, ...],
        publish: tuple[str, ...],
        publish_all: bool,
        expose: tuple[str, ...],
        rate_in: str,
        rate_out: str,
        **others: Any,
    ) -> Any:
        connection = Connection(
            networks=networks,
            addresses=addresses,
            mac=mac_address,
            aliases=aliases,
            publish=publish,
            publish_all=publish_all,
            expose=expose,
            rate_in=rate_in,
            rate_out=rate_out,
        )
        return command(*args, connection=connection, **others)

    gathered: Callable[..., Any] = gathering
    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
