"""``netagent info``."""

import click

from netagent.cli.client import Client
from netagent.cli.output import format_option, print_json
from netagent.v1.agent_pb2 import InfoRequest, InfoResponse


@click.command()
@format_option(default="text")
@click.pass_obj
def info(client: Client, form: str) -> None:
    """Show who the agent is and how it is doing."""
    answer = client.call(client.agent.Info, InfoRequest())
    if form == "json":
        print_json(
            {
                "ServerVersion": answer.version,
                "ID": answer.host_id,
                "Name": answer.host_name,
                "Addresses": list(answer.underlay),
                "Store": answer.store,
                "StoreConnected": answer.store_connected,
                "ForeignCluster": answer.foreign_cluster,
                "StoreRevision": answer.store_revision,
                "StoreListings": answer.store_listings,
                "LeaseRemaining": _lease(answer),
                "KernelError": answer.kernel_error,
                "RefusedRecords": dict(sorted(answer.refused_records.items())),
                "RunDir": answer.run_dir,
            }
        )
        return
    lines = {
        "Version": answer.version,
        "Host": answer.host_name,
        "Host ID": answer.host_id,
        "Addresses": ", ".join(answer.underlay) or "none",
        "Store": f"{answer.store} ({_contact(answer)})",
        "Store revision": f"{answer.store_revision}, listed {answer.store_listings} times",
        "Lease": "none" if (lease := _lease(answer)) is None else f"{lease:.1f} s",
        "Kernel": answer.kernel_error or "as it should be",
        "Run directory": answer.run_dir,
        "Refused records": str(len(answer.refused_records)),
    }
    for key, value in lines.items():
        click.echo(f"{key}: {value}")
    for key, reason in sorted(answer.refused_records.items()):
        click.echo(f" {key}: {reason}")


def _contact(answer: InfoResponse) -> str:
    if answer.foreign_cluster:
        return f"refused: it is cluster {answer.foreign_cluster}"
    return "connected" if answer.store_connected else "not reachable"


def _lease(answer: InfoResponse) -> float | None:
    return round(answer.lease_remaining_s, 1) if answer.HasField("lease_remaining_s") else None
