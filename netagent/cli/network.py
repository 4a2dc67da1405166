"""``netagent network``: create, ls, inspect, rm; its other commands are in modules of their own."""

import time
from functools import partial

import click

from netagent.cli.client import Client
from netagent.cli.connect import connect, disconnect, update
from netagent.cli.filters import network_filter
from netagent.cli.output import (
    Json,
    for_each,
    format_option,
    go_time,
    label_header,
    label_text,
    parse_pairs,
    print_found,
    print_json_lines,
    print_listing,
    print_name,
    template_option,
)
from netagent.cli.prune import prune
from netagent.cli.shapes import driver_name, network_shape
from netagent.cli.stats import network_stats
from netagent.errors import NotFound
from netagent.model.ids import short
from netagent.v1.networks_pb2 import (
    CreateNetworkRequest,
    InspectNetworkRequest,
    ListNetworksRequest,
    Network,
    RemoveNetworkRequest,
)

_HEADERS = {
    "CreatedAt": "CREATED AT",
    "Driver": "DRIVER",
    "ID": "NETWORK ID",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Label": label_header,
    "Labels": "LABELS",
    "Name": "NAME",
    "Scope": "SCOPE",
    "Subnet": "SUBNET",
}

PATIENCE_S = 0.5
"""How long a removal may take before it is said what it waits for."""


class _Group(click.Group):
    """The group ``network``, with Docker's second names for two commands."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by one of its names."""
        return super().get_command(ctx, {"list": "ls", "remove": "rm"}.get(cmd_name, cmd_name))


@click.group(cls=_Group)
def network() -> None:
    """Manage networks."""


for _command in (connect, disconnect, network_stats, prune, update):
    network.add_command(_command)


@network.command()
@click.option(
    "-d", "--driver", default="bridge", show_default=True, help="bridge: on this host; vxlan, gre, route: across hosts."
)
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="Subnet, one per family.")
@click.option("--gateway", "gateways", multiple=True, metavar="IP", help="Gateway address, one per subnet.")
@click.option("--ip-range", "ip_ranges", multiple=True, metavar="CIDR", help="Part of a subnet to give addresses from.")
@click.option("--aux-address", "auxiliary", multiple=True, metavar="N=IP", help="Address that something else has.")
@click.option("--host-prefix", type=click.IntRange(1, 128), help="Prefix length of the block that each host gets.")
@click.option("--internal", is_flag=True, help="No way out of the network.")
@click.option(
    "--ipv4",
    type=bool,
    is_flag=False,
    flag_value=True,
    default=None,
    metavar="true|false",
    help="false: no IPv4; true: IPv4 too where only an IPv6 subnet is given.",
)
@click.option("--ipv6", is_flag=True, help="IPv6 too: a unique local subnet if none is given.")
@click.option("--force", is_flag=True, help="Take a subnet even if hosts route it otherwise.")
@click.option("--dns", multiple=True, metavar="IP", help="Nameserver for names outside, instead of the host's.")
@click.option(
    "--route", "routes", multiple=True, metavar="CIDR,IP", help="Route of its containers: destination and gateway."
)
@click.option("--attachable", is_flag=True, help="As Docker has it; containers can be connected in any case.")
@click.option("-o", "--opt", "options", multiple=True, metavar="K=V", help="Option of the driver.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Label.")
@format_option()
@click.argument("name")
@click.pass_obj
def create(
    client: Client,
    driver: str,
    subnets: tuple[str, ...],
    gateways: tuple[str, ...],
    ip_ranges: tuple[str, ...],
    auxiliary: tuple[str, ...],
    host_prefix: int | None,
    internal: bool,
    ipv4: bool | None,
    ipv6: bool,
    force: bool,
    attachable: bool,
    dns: tuple[str, ...],
    routes: tuple[str, ...],
    options: tuple[str, ...],
    labels: tuple[str, ...],
    form: str,
    name: str,
) -> None:
    """Create a network and print its id."""
    request = CreateNetworkRequest(
        name=name,
        driver=driver,
        subnets=subnets,
        gateways=gateways,
        ip_ranges=ip_ranges,
        aux_addresses=parse_pairs(auxiliary),
        host_prefix=host_prefix or 0,
        internal=internal,
        ipv4=ipv4,
        ipv6=ipv6,
        force=force,
        options={**parse_pairs(options), **_joined("dns", ",", dns), **_joined("routes", ";", routes)},
        labels=parse_pairs(labels),
    )
    answer = client.call(client.networks.Create, request)
    if form == "json":
        print_json_lines([{"Id": answer.id}])
    else:
        click.echo(answer.id)


def _joined(name: str, separator: str, texts: tuple[str, ...]) -> dict[str, str]:
    """Return several texts as one option of the network; none as no option."""
    return {name: separator.join(texts)} if texts else {}


@network.command(name="ls")
@click.option("-f", "--filter", "filters", multiple=True, metavar="K=V", help="Only those that match.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@template_option("table", "json", "raw")
@click.pass_obj
def list_networks(client: Client, filters: tuple[str, ...], quiet: bool, no_trunc: bool, form: str) -> None:
    """List networks."""
    matches = network_filter(filters)
    networks = [n for n in client.call(client.networks.List, ListNetworksRequest()).networks if matches(n)]
    rows = [_listed(n, n.id if no_trunc else short(n.id)) for n in networks]
    if quiet:
        for row in rows:
            click.echo(f"network_id: {row['ID']}" if form == "raw" else row["ID"])
    elif form == "raw":
        for row in rows:
            click.echo(
                f"network_id: {row['ID']}\nname: {row['Name']}\ndriver: {row['Driver']}\nscope: {row['Scope']}\n"
            )
    else:
        print_listing(form, rows, _HEADERS, ("ID", "Name", "Driver", "Scope", "Subnet"))


def _listed(network: Network, identity: str) -> Json:
    """Return a line of ``docker network ls``, where all values are strings; ``Subnet`` is ours."""
    versions = {6 if ":" in subnet.prefix else 4 for subnet in network.subnets}
    return {
        "CreatedAt": go_time(network.created),
        "Driver": driver_name(network),
        "ID": identity,
        "IPv4": str(4 in versions).lower(),
        "IPv6": str(6 in versions).lower(),
        "Internal": str(network.internal).lower(),
        "Label": lambda key: network.labels.get(key, ""),
        "Labels": label_text(network.labels),
        "Name": network.name,
        "Scope": network.scope,
        "Subnet": ",".join(subnet.prefix for subnet in network.subnets),
    }


@network.command()
@template_option("json", flags=("-f",))
@click.option("-v", "--verbose", is_flag=True, help="As Docker has it; everything is shown in any case.")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(client: Client, form: str, verbose: bool, names: tuple[str, ...]) -> None:
    """Show all of one or more networks, with who holds which addresses."""
    print_found(
        names,
        lambda name: network_shape(client.call(client.networks.Inspect, InspectNetworkRequest(name=name))),
        form,
    )


@network.command(name="rm")
@click.option(
    "-f", "--force", is_flag=True, help="Take the blocks of hosts that are away; a missing network is no error."
)
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def remove(client: Client, force: bool, form: str, names: tuple[str, ...]) -> None:
    """Remove networks."""
    for_each(client, names, partial(_remove, client, force=force, form=form))


def _remove(client: Client, name: str, *, force: bool, form: str) -> None:
    told: tuple[str, ...] = ()
    begun = time.monotonic()
    try:
        for progress in client.stream(client.networks.Remove, RemoveNetworkRequest(name=name, force=force)):
            waiting_for = tuple(progress.waiting_for)
            if waiting_for and waiting_for != told and time.monotonic() - begun >= PATIENCE_S:
                click.echo(f"{name}: waiting for {', '.join(waiting_for)}", err=True)
                told = waiting_for
            if progress.taken_from:
                click.echo(f"{name}: taken from {', '.join(progress.taken_from)}, which did not answer", err=True)
    except NotFound:
        if not force:
            raise
        return
    print_name(name, form)
