"""``netagent ps``."""

import json

import click

from netagent.cli.bindings import bindings_of, port_summary
from netagent.cli.client import Client
from netagent.cli.container_filters import asks_for_stopped, container_filter
from netagent.cli.output import (
    Json,
    go_time,
    human_duration,
    label_header,
    label_text,
    print_listing,
    since,
    template_option,
)
from netagent.model.ids import short
from netagent.v1.containers_pb2 import Container, Endpoint, ListContainersRequest

_COMMAND_LIMIT = 20
"""Characters of a command in a table, as in Docker."""

_UP = ("created", "running")
"""What is listed without ``-a``: those whose network is in place."""

_HEADERS = {
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "ID": "CONTAINER ID",
    "Label": label_header,
    "Labels": "LABELS",
    "Names": "NAME",
    "Networks": "NETWORKS",
    "Ports": "PORTS",
    "RunningFor": "CREATED",
    "State": "STATE",
    "Status": "STATUS",
}


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Stopped ones too.")
@click.option("-f", "--filter", "filters", multiple=True, metavar="K=V", help="Only those that match.")
@click.option("-n", "--last", type=click.IntRange(min=-1), default=-1, metavar="N", help="The last N, also stopped.")
@click.option("-l", "--latest", is_flag=True, help="The last one, stopped or not.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--no-trunc", is_flag=True, help="Whole ids and commands.")
@template_option("table", "json")
@click.pass_obj
def ps(
    client: Client,
    everything: bool,
    filters: tuple[str, ...],
    last: int,
    latest: bool,
    quiet: bool,
    no_trunc: bool,
    form: str,
) -> None:
    """List containers, the latest first: those that netagent runs and those that it connects for others.

    Filters are id, name, label, status, exited, network, publish, expose, before and since, as Docker's.
    """
    last = 1 if latest else last
    whole = everything or last > 0 or asks_for_stopped(filters)
    answer = client.call(client.containers.List, ListContainersRequest(all=whole or bool(filters)))
    containers = sorted(answer.containers, key=lambda c: c.created, reverse=True)
    matches = container_filter(filters, containers)
    names = {c.id: c.name for c in containers}
    shown = [c for c in containers if (whole or c.state in _UP) and matches(c)]
    rows = [_listed(container, names, no_trunc=no_trunc) for container in shown[: last if last > 0 else None]]
    if quiet:
        for row in rows:
            click.echo(row["ID"])
    else:
        print_listing(form, rows, _HEADERS, ("ID", "Names", "Command", "Status", "Networks", "Ports"))


def _listed(container: Container, names: dict[str, str], *, no_trunc: bool) -> Json:
    """Return a line of ``docker ps --format json``, where all values are strings."""
    return {
        "Command": _command(container, no_trunc=no_trunc),
        "CreatedAt": go_time(container.created),
        "ID": container.id if no_trunc else short(container.id),
        "Label": lambda key: container.labels.get(key, ""),
        "Labels": label_text(container.labels),
        "Names": container.name,
        "Networks": _networks(container, names),
        "Ports": port_summary(bindings_of(container), container.exposed),
        "RunningFor": f"{human_duration(since(container.created))} ago",
        "State": container.state,
        "Status": _status(container),
    }


def _command(container: Container, *, no_trunc: bool) -> str:
    text = " ".join(container.command)
    if not no_trunc and len(text) > _COMMAND_LIMIT:
        text = text[: _COMMAND_LIMIT - 1] + "…"
    return json.dumps(text, ensure_ascii=False)


def _status(container: Container) -> str:
    match container.state:
        case "running" if container.kind != "run":
            return f"Attached {human_duration(since(container.created))} ago"
        case "running":
            return f"Up {human_duration(since(container.started))}"
        case "exited":
            return f"Exited ({container.exit_code}) {human_duration(since(container.finished))} ago"
        case state:
            return state.capitalize()


def _networks(container: Container, names: dict[str, str]) -> str:
    """Return how a container is connected and, since this is a network tool, with which addresses."""
    if container.network_mode == "networks":
        return ", ".join(_network(endpoint) for endpoint in container.endpoints)
    if container.network_mode == "container":
        return f"container:{names.get(container.shares, short(container.shares))}"
    return container.network_mode


def _network(endpoint: Endpoint) -> str:
    addresses = ",".join(address.address for address in endpoint.addresses)
    name = endpoint.network_name or short(endpoint.network_id)
    return f"{name}={addresses}" if addresses else name
