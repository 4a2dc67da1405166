"""``netagent host``."""

from functools import partial

import click

from netagent.cli.client import Client
from netagent.cli.output import (
    Json,
    for_each,
    format_option,
    print_found,
    print_json_lines,
    print_name,
    print_table,
    template_option,
)
from netagent.v1.hosts_pb2 import (
    DrainHostRequest,
    Host,
    HostDetails,
    InspectHostRequest,
    ListHostsRequest,
    RemoveHostRequest,
    ReserveBlocksRequest,
)


@click.group()
def host() -> None:
    """Look at the hosts of the cluster, and remove those that are gone."""


@host.command(name="ls")
@format_option()
@click.pass_obj
def list_hosts(client: Client, form: str) -> None:
    """List the hosts of the cluster; a star marks the one that answers."""
    hosts = client.call(client.hosts.List, ListHostsRequest()).hosts
    if form == "json":
        print_json_lines(_shape(entry) for entry in hosts)
        return
    print_table(
        ("HOST ID", "NAME", "STATUS", "ADDRESS", "MTU", "BLOCKS"),
        [
            (
                f"{entry.id} *" if entry.self else entry.id,
                entry.name,
                _status(entry),
                ",".join(entry.underlay),
                str(entry.mtu),
                str(len(entry.blocks)),
            )
            for entry in hosts
        ],
    )


def _status(entry: Host) -> str:
    parts = ["Ready" if entry.live else "Away"]
    if entry.conflicts:
        parts.append(f"{len(entry.conflicts)} cut off")
    if entry.seized:
        parts.append(f"{len(entry.seized)} overwritten")
    return ", ".join((*parts, *entry.problems))


def _shape(entry: Host) -> Json:
    return {
        "ID": entry.id,
        "Name": entry.name,
        "Self": entry.self,
        "Status": "Ready" if entry.live else "Away",
        "Addresses": list(entry.underlay),
        "MTU": entry.mtu,
        "Interface": entry.interface,
        "Blocks": [
            {"Network": network, "Prefix": prefix} for network, prefix in (text.split() for text in entry.blocks)
        ],
        "Conflicts": list(entry.conflicts),
        "Seized": list(entry.seized),
        "Problems": list(entry.problems),
    }


@host.command()
@template_option("json", flags=("-f",))
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def inspect(client: Client, form: str, names: tuple[str, ...]) -> None:
    """Show all of one or more hosts, with everything they hold."""
    print_found(names, lambda name: _details(client.call(client.hosts.Inspect, InspectHostRequest(name=name))), form)


def _details(details: HostDetails) -> Json:
    return {
        **_shape(details.host),
        "Features": list(details.features),
        "OnLink": list(details.on_link),
        "Blocks": [
            {"Network": b.network, "Prefix": b.prefix, "State": b.state, "Epoch": b.epoch} for b in details.blocks
        ],
        "FixedAddresses": [{"Network": a.network, "Address": a.address, "Epoch": a.epoch} for a in details.addresses],
        "Containers": [
            {"Name": e.container, "Network": e.network, "Addresses": list(e.addresses)} for e in details.endpoints
        ],
    }


@host.command(name="rm")
@click.option("-f", "--force", is_flag=True, help="Take the claims of a live host too.")
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def remove(client: Client, force: bool, form: str, names: tuple[str, ...]) -> None:
    """Remove hosts that are gone for good: their blocks, fixed addresses and containers' records."""
    for_each(client, names, partial(_remove, client, force=force, form=form))


def _remove(client: Client, name: str, *, force: bool, form: str) -> None:
    answer = client.call(client.hosts.Remove, RemoveHostRequest(name=name, force=force))
    if form == "json":
        freed = {"Addresses": answer.addresses, "Containers": answer.endpoints}
        print_json_lines([{"Name": answer.host.name, "ID": answer.host.id, "Blocks": len(answer.host.blocks), **freed}])
    else:
        click.echo(answer.host.name)


@host.command()
@click.option("--block", default="", metavar="CIDR", help="That block; else one of each subnet, with --release all.")
@click.option("--release", is_flag=True, help="Have the host give them back, once no container has an address there.")
@format_option()
@click.argument("name")
@click.argument("network")
@click.pass_obj
def reserve(client: Client, block: str, release: bool, form: str, name: str, network: str) -> None:
    """Give a host blocks of a network in advance, and print them."""
    request = ReserveBlocksRequest(host=name, network=network, block=block, release=release)
    for held in client.call(client.hosts.Reserve, request).blocks:
        if form == "json":
            print_json_lines([{"Network": network, "Prefix": held.prefix, "State": held.state, "Epoch": held.epoch}])
        else:
            click.echo(held.prefix)


@host.command()
@click.option("--stop", is_flag=True, help="End it: the host gets containers again.")
@format_option()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def drain(client: Client, stop: bool, form: str, names: tuple[str, ...]) -> None:
    """Let hosts get no more containers in networks across hosts, and give back their blocks as they empty."""

    def act(name: str) -> None:
        print_name(client.call(client.hosts.Drain, DrainHostRequest(name=name, stop=stop)).name, form)

    for_each(client, names, act)
