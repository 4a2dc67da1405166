"""``netagent events``."""

from datetime import datetime

import click

from netagent.cli.client import Client
from netagent.cli.output import Json, format_option, print_json_lines
from netagent.v1.events_pb2 import Event, WatchEventsRequest


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens.")
@format_option(default="text")
@click.pass_obj
def events(client: Client, follow: bool, form: str) -> None:
    """Show what happened on this host since the agent's start."""
    for event in client.stream(client.events.Watch, WatchEventsRequest(follow=follow)):
        if form == "json":
            print_json_lines([_shape(event)])
        else:
            click.echo(_line(event))


def _line(event: Event) -> str:
    """Return an event as ``docker events`` prints it."""
    attributes = ", ".join(f"{key}={value}" for key, value in sorted(event.attributes.items()))
    words = [event.time, event.type, event.action, event.id, f"({attributes})" if attributes else ""]
    return " ".join(word for word in words if word)


def _shape(event: Event) -> Json:
    """Return an event as ``docker events --format json`` prints it."""
    microseconds = round(datetime.fromisoformat(event.time).timestamp() * 1e6)
    return {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(sorted(event.attributes.items()))},
        "scope": "local",
        "time": microseconds // 1_000_000,
        "timeNano": microseconds * 1000,
    }
