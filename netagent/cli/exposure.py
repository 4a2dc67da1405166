"""``netagent exposure``."""

import click

from netagent.cli.client import Client
from netagent.cli.output import Json, format_option, print_json, print_table
from netagent.v1.firewall_pb2 import Exposure, ExposureRequest


@click.command()
@format_option()
@click.pass_obj
def exposure(client: Client, form: str) -> None:
    """Show what of this host's containers can be reached, and through which rule.

    BLOCKED BY names what stops it all the same: the administrator's rules, other programs', or an internal network;
    with "maybe" where that depends on what cannot be told beforehand, such as the client's address. Warnings about
    what other programs' rules block of netagent's own traffic go to standard error.
    """
    answer = client.call(client.firewall.Exposure, ExposureRequest())
    if form == "json":
        print_json({"Ways": [_shape(way) for way in answer.ways], "Warnings": list(answer.warnings)})
        return
    print_table(
        ("CONTAINER", "NETWORK", "REACHABLE FROM", "ADDRESS", "TARGET", "RULE", "BLOCKED BY"),
        [
            (
                way.container,
                way.network,
                _from(way),
                _address(way),
                way.target,
                way.rule,
                "; ".join(o.where if o.certain else f"maybe {o.where}" for o in way.obstacles) or "-",
            )
            for way in answer.ways
        ],
    )
    for warning in answer.warnings:
        click.echo(f"warning: {warning}", err=True)


def _from(way: Exposure) -> str:
    if way.reach != "network":
        return ",".join(way.sources) or way.reach
    return f"{way.network} on {', '.join(['this host', *way.peers])}"


def _address(way: Exposure) -> str:
    address = f"[{way.address}]" if way.version == 6 else way.address
    return f"{address} all ports" if way.ports == "any" else f"{address}:{way.ports}/{way.protocol}"


def _shape(way: Exposure) -> Json:
    return {
        "Container": way.container,
        "ContainerID": way.container_id,
        "Network": way.network,
        "ReachableFrom": way.reach,
        "Sources": list(way.sources),
        "Hosts": list(way.peers),
        "Family": f"IPv{way.version}",
        "Protocol": way.protocol,
        "Address": way.address,
        "Ports": way.ports,
        "Target": way.target,
        "Rule": way.rule,
        "BlockedBy": [{"Where": obstacle.where, "Certain": obstacle.certain} for obstacle in way.obstacles],
    }
