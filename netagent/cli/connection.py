"""The options of ``run`` and ``attach`` that say how a container is to be connected."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from netagent.cli.output import parse_pairs
from netagent.errors import InvalidRequest
from netagent.v1.containers_pb2 import Connection

_LIMITS = (
    click.option("--rate-in", default="", metavar="RATE", help="Limit of what it receives per network, e.g. 10mbit."),
    click.option("--rate-out", default="", metavar="RATE", help="Limit of what it sends per network, e.g. 10mbit."),
)

_PRIORITIES = click.IntRange(-(2**31), 2**31 - 1)
gw_priority_option = click.option(
    "--gw-priority",
    type=_PRIORITIES,
    default=0,
    metavar="N",
    help="The default routes lead through the network with the highest; among equals, the first by name.",
)

link_local_option = click.option(
    "--link-local-ip",
    "link_local",
    multiple=True,
    metavar="IP",
    help="Link-local address beside the others, such as 169.254.8.8 or fe80::8.",
)

_OPTIONS = (
    click.option(
        "--network",
        "--net",
        "networks",
        multiple=True,
        metavar="NETWORK",
        help="Network to connect to, several times for several; or host, none, container:NAME; or with options of this"
        " network name=NETWORK,ip=IP,ip6=IP,link-local-ip=IP,alias=NAME,mac-address=MAC,gw-priority=N."
        "  [default: bridge]",
    ),
    click.option("--ip", "--ip6", "addresses", multiple=True, metavar="IP", help="Fixed address in the first network."),
    link_local_option,
    gw_priority_option,
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


def label_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--label`` and ``--label-file`` to ``command``, which gets them as one mapping, ``labels``."""

    @wraps(command)
    def gathering(*args: Any, labels: tuple[str, ...], label_files: tuple[Path, ...], **others: Any) -> Any:
        lines = [line for path in label_files for line in _label_lines(path)]
        return command(*args, labels=parse_pairs((*lines, *labels)), **others)

    gathered = click.option(
        "--label-file",
        "label_files",
        multiple=True,
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        metavar="FILE",
        help="File with a label a line.",
    )(gathering)
    return click.option("-l", "--label", "labels", multiple=True, metavar="K=V", help="Label.")(gathered)


def _label_lines(path: Path) -> list[str]:
    """Return the labels in a file, as Docker reads it: one a line, without empty lines and remarks."""
    try:
        lines = [line.lstrip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--label-file {path} cannot be read: {error}") from error
    return [line for line in lines if line and not line.startswith("#")]


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
        gw_priority: int,
        link_local: tuple[str, ...],
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
            gw_priority=gw_priority,
            link_local=link_local,
        )
        return command(*args, connection=connection, **others)

    gathered: Callable[..., Any] = gathering
    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered
