"""``netagent host``."""

import click

from netagent.cli.client import Client
from netagent.cli.output import Json, format_option, print_json_lines, print_table
from netagent.v1.hosts_pb2 import Host, ListHostsRequest


@click.group()
def host() -> None:
    """Look at the hosts of the cluster."""


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
    return "Ready" if entry.live else "Away"


def _shape(entry: Host) -> Json:
    return {
        "ID": entry.id,
        "Name": entry.name,
        "Self": entry.self,
        "Status": _status(entry),
        "Addresses": list(entry.underlay),
        "MTU": entry.mtu,
        "Interface": entry.interface,
        "Blocks": [
            {"Network": network, "Prefix": prefix} for network, prefix in (text.split() for text in entry.blocks)
        ],
    }
