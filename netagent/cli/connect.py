"""``netagent network connect``, ``disconnect`` and ``update``: what changes a network in use."""

import click

from netagent.cli.client import Client
from netagent.cli.connection import gw_priority_option, link_local_option
from netagent.cli.output import format_option, parse_pairs, print_name
from netagent.v1.networks_pb2 import ConnectContainerRequest, DisconnectContainerRequest, UpdateNetworkRequest


@click.command()
@click.option("--ip", "--ip6", "addresses", multiple=True, metavar="IP", help="Fixed address, one per family.")
@click.option("--mac-address", default="", metavar="MAC", help="MAC address.")
@click.option("--alias", "--network-alias", "aliases", multiple=True, help="Further name in the network.")
@click.option("--interface", default="", metavar="NAME", help="Name of the interface inside.")
@click.option(
    "--driver-opt",
    "driver_options",
    multiple=True,
    metavar="K=V",
    help="As Docker has it: com.docker.network.endpoint.ifname=NAME.",
)
@link_local_option
@gw_priority_option
@click.option("--rate-in", default="", metavar="RATE", help="Limit of what it receives there, e.g. 10mbit.")
@click.option("--rate-out", default="", metavar="RATE", help="Limit of what it sends there, e.g. 10mbit.")
@click.argument("network")
@click.argument("container")
@click.pass_obj
def connect(
    client: Client,
    addresses: tuple[str, ...],
    mac_address: str,
    aliases: tuple[str, ...],
    rate_in: str,
    rate_out: str,
    gw_priority: int,
    link_local: tuple[str, ...],
    interface: str,
    driver_options: tuple[str, ...],
    network: str,
    container: str,
) -> None:
    """Add a container to a network, also one that is running."""
    request = ConnectContainerRequest(
        network=network,
        container=container,
        addresses=addresses,
        mac=mac_address,
        aliases=aliases,
        rate_in=rate_in,
        rate_out=rate_out,
        gw_priority=gw_priority,
        link_local=link_local,
        interface=interface,
        driver_options=driver_options,
    )
    client.call(client.networks.Connect, request)


@click.command()
@click.option("-f", "--force", is_flag=True, help="A container that is not connected, or not there, is no error.")
@click.argument("network")
@click.argument("container")
@click.pass_obj
def disconnect(client: Client, force: bool, network: str, container: str) -> None:
    """Take a container off a network."""
    request = DisconnectContainerRequest(network=network, container=container, force=force)
    client.call(client.networks.Disconnect, request)


@click.command()
@click.option("--label", "labels", multiple=True, metavar="K=V", help="Label to set.")
@click.option("--label-rm", "removed_labels", multiple=True, metavar="K", help="Label to take away.")
@click.option("-o", "--opt", "options", multiple=True, metavar="K=V", help="Option to set; K= for its default.")
@click.option("--subnet", "subnets", multiple=True, metavar="CIDR", help="Subnet to add.")
@click.option("--gateway", "gateways", multiple=True, metavar="IP", help="Gateway of a subnet to add.")
@click.option("--ip-range", "ip_ranges", multiple=True, metavar="CIDR", help="Part of it to give addresses from.")
@click.option(
    "--subnet-rm", "--remove-subnet", "removed_subnets", multiple=True, metavar="CIDR", help="Unused subnet to remove."
)
@click.option("--force", is_flag=True, help="Take a subnet even if hosts route it otherwise.")
@click.option("-d", "--driver", default="", help="Another driver; each peer is left on the old one until it answers.")
@format_option()
@click.argument("name")
@click.pass_obj
def update(
    client: Client,
    driver: str,
    labels: tuple[str, ...],
    removed_labels: tuple[str, ...],
    options: tuple[str, ...],
    subnets: tuple[str, ...],
    gateways: tuple[str, ...],
    ip_ranges: tuple[str, ...],
    removed_subnets: tuple[str, ...],
    force: bool,
    form: str,
    name: str,
) -> None:
    """Change driver, labels, options and subnets of a network; running containers follow.

    They get an address of a further subnet when they are connected the next time.
    """
    if not (driver or labels or removed_labels or options or subnets or removed_subnets):
        raise click.UsageError("nothing to change: give --driver, --label, --label-rm, --opt, --subnet or --subnet-rm")
    request = UpdateNetworkRequest(
        name=name,
        driver=driver,
        labels=parse_pairs(labels),
        removed_labels=removed_labels,
        options=parse_pairs(options),
        subnets=subnets,
        gateways=gateways,
        ip_ranges=ip_ranges,
        removed_subnets=removed_subnets,
        force=force,
    )
    client.call(client.networks.Update, request)
    print_name(name, form)
