"""``netagent stats`` and ``netagent network stats``: what has been received and sent."""

import click

from netagent.cli.client import Client
from netagent.cli.output import Json, human_size, natural_key, print_listing, template_option
from netagent.model.ids import short
from netagent.v1.stats_pb2 import ContainerStatsRequest, Counters, NetworkStatsRequest

_COUNTER_HEADERS = {
    "NetIO": "NET I/O",
    "RxBytes": "RX BYTES",
    "RxPackets": "RX PACKETS",
    "RxDropped": "RX DROPPED",
    "TxBytes": "TX BYTES",
    "TxPackets": "TX PACKETS",
    "TxDropped": "TX DROPPED",
}
_HEADERS = {"ID": "CONTAINER ID", "Name": "NAME", "Network": "NETWORK", "Interface": "INTERFACE", **_COUNTER_HEADERS}
_NETWORK_HEADERS = {
    "ID": "NETWORK ID",
    "Name": "NAME",
    "Driver": "DRIVER",
    "Containers": "CONTAINERS",
    "TunnelIO": "TUNNEL I/O",
    "TunnelRxBytes": "TUNNEL RX BYTES",
    "TunnelTxBytes": "TUNNEL TX BYTES",
    **_COUNTER_HEADERS,
}
_PACKETS = ("RxPackets", "RxDropped", "TxPackets", "TxDropped")


@click.command()
@click.option("--no-stream", is_flag=True, help="As Docker has it; the counters are shown once in any case.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@template_option("table", "json")
@click.argument("names", nargs=-1)
@click.pass_obj
def stats(client: Client, no_stream: bool, no_trunc: bool, form: str, names: tuple[str, ...]) -> None:
    """Show what containers have received and sent in each network since they started.

    With --format json, or {{json .Ports}}, also what has passed each published port.
    """
    answer = client.call(client.stats.Containers, ContainerStatsRequest(names=names))
    rows = [
        {
            "ID": entry.container_id if no_trunc else short(entry.container_id),
            "Name": entry.container_name,
            "Network": entry.network_name or short(entry.network_id),
            "Interface": entry.interface,
            "Ports": {port: _passed(entry.ports[port]) for port in sorted(entry.ports, key=natural_key)},
            **_counted(entry.counters),
        }
        for entry in answer.endpoints
    ]
    _print(form, rows, _HEADERS, ("ID", "Name", "Network", "Interface", "NetIO", *_PACKETS))


@click.command(name="stats")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@template_option("table", "json")
@click.argument("names", nargs=-1)
@click.pass_obj
def network_stats(client: Client, no_trunc: bool, form: str, names: tuple[str, ...]) -> None:
    """Show what the containers of this host have received and sent in each network, those connected now."""
    answer = client.call(client.stats.Networks, NetworkStatsRequest(names=names))
    rows = [
        {
            "ID": entry.id if no_trunc else short(entry.id),
            "Name": entry.name,
            "Driver": entry.driver,
            "Containers": entry.containers,
            "TunnelIO": _net_io(entry.tunnel) if entry.HasField("tunnel") else "--",
            "TunnelRxBytes": entry.tunnel.rx_bytes,
            "TunnelTxBytes": entry.tunnel.tx_bytes,
            **_counted(entry.counters),
        }
        for entry in answer.networks
    ]
    _print(form, rows, _NETWORK_HEADERS, ("ID", "Name", "Driver", "Containers", "NetIO", *_PACKETS, "TunnelIO"))


def _counted(counters: Counters) -> Json:
    return {
        "NetIO": _net_io(counters),
        "RxBytes": counters.rx_bytes,
        "RxPackets": counters.rx_packets,
        "RxDropped": counters.rx_dropped,
        "TxBytes": counters.tx_bytes,
        "TxPackets": counters.tx_packets,
        "TxDropped": counters.tx_dropped,
    }


def _passed(counters: Counters) -> Json:
    return {
        "RxBytes": counters.rx_bytes,
        "RxPackets": counters.rx_packets,
        "TxBytes": counters.tx_bytes,
        "TxPackets": counters.tx_packets,
    }


def _net_io(counters: Counters) -> str:
    """Return received and sent as the column NET I/O of ``docker stats`` has them."""
    return f"{human_size(counters.rx_bytes)} / {human_size(counters.tx_bytes)}"


def _print(form: str, rows: list[Json], headers: dict[str, str], columns: tuple[str, ...]) -> None:
    if form == "table":
        rows = [{key: str(value) for key, value in row.items()} for row in rows]
    print_listing(form, rows, headers, columns)
