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
                "StoreError": answer.store_error,
                "ForeignCluster": answer.foreign_cluster,
                "StoreRevision": answer.store_revision,
                "StoreListings": dict(sorted(answer.store_listings.items())),
                "StoreStatistics": {
                    "RepeatedCalls": answer.store_statistics.repeated_calls,
                    "LostReplies": answer.store_statistics.lost_replies,
                    "UnknownOutcomes": answer.store_statistics.unknown_outcomes,
                    "MissedChanges": answer.store_statistics.missed_changes,
                    "SilentSeconds": _silence(answer),
                },
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
        "Store revision": _revision(answer),
        "Store listed": _listings(answer),
        "Store calls": _calls(answer),
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
    if not answer.store_error:
        return "connected" if answer.store_connected else "not reachable"
    if answer.store_connected:
        return f"connected, but without this host's latest records: {answer.store_error}"
    return f"not reachable: {answer.store_error}"


def _revision(answer: InfoResponse) -> str:
    silence = _silence(answer)
    return f"{answer.store_revision}" + ("" if silence is None else f", heard {silence:.1f} s ago")


def _listings(answer: InfoResponse) -> str:
    return ", ".join(f"{count} ({why})" for why, count in sorted(answer.store_listings.items())) or "never"


def _calls(answer: InfoResponse) -> str:
    counts = answer.store_statistics
    return (
        f"{counts.repeated_calls} repeated, {counts.lost_replies} replies lost ({counts.unknown_outcomes} of unknown"
        f" outcome), {counts.missed_changes} changes missed"
    )


def _silence(answer: InfoResponse) -> float | None:
    counts = answer.store_statistics
    return round(counts.silent_s, 1) if counts.HasField("silent_s") else None


def _lease(answer: InfoResponse) -> float | None:
    return round(answer.lease_remaining_s, 1) if answer.HasField("lease_remaining_s") else None
