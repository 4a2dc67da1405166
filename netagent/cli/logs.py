"""``netagent logs``, and what else reads a container's log: a file on this machine, read without the agent."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import click

from netagent.cli.client import Client
from netagent.cli.output import format_option
from netagent.errors import Conflict, NotFound
from netagent.runtime import logs as container_logs
from netagent.runtime.layout import Layout
from netagent.runtime.logs import LogRecord
from netagent.v1.containers_pb2 import Container, InspectContainerRequest, WaitContainerRequest


class Printer:
    """Prints records of a log, each to our stream of the same name. ``form`` is "text" or "json"."""

    def __init__(self, *, form: str = "text", with_times: bool = False) -> None:
        self._form = form
        self._with_times = with_times
        self._is_within_line: dict[str, bool] = {}

    def print(self, record: LogRecord) -> None:
        """Print one record; the time stands before whole lines, not before pieces."""
        if self._form == "json":
            fields = {"time": record.time, "stream": record.stream, "log": record.data.decode(errors="replace")}
            click.echo(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
            return
        if self._with_times and not self._is_within_line.get(record.stream):
            self._write(record.stream, f"{record.time} ".encode())
        self._write(record.stream, record.data)
        self._is_within_line[record.stream] = not record.data.endswith(b"\n")

    def _write(self, stream: str, data: bytes) -> None:
        target = sys.stderr.buffer if stream == "stderr" else sys.stdout.buffer
        target.write(data)
        target.flush()


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the container ends.")
@click.option("-n", "--tail", default="all", metavar="LINES", show_default=True, help="Begin with the last lines.")
@click.option("-t", "--timestamps", is_flag=True, help="Show times.")
@format_option(default="text")
@click.argument("name")
@click.pass_obj
def logs(client: Client, follow: bool, tail: str, timestamps: bool, form: str, name: str) -> None:
    """Show a container's output."""
    client.require_local("logs")
    lines = _parse_tail(tail)
    container = client.call(client.containers.Inspect, InspectContainerRequest(name=name))
    log = log_of(container)
    printer = Printer(form=form, with_times=timestamps)
    if follow:
        asyncio.run(_follow(client, container, log, printer, tail=lines))
        return
    for record in container_logs.read(log, tail=lines):
        printer.print(record)


def log_of(container: Container) -> Path:
    """Return where a container's log is; Conflict if netagent did not start it."""
    if not container.directory:
        raise Conflict(f"container {container.name} was not started by netagent", hint="its own runtime has its logs")
    return Layout(Path(container.directory)).log


async def ended(client: Client, container_id: str) -> int | None:
    """Return the exit status once a container does not run any more, None if it was removed."""
    loop = asyncio.get_running_loop()
    is_answered = asyncio.Event()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # The loop may be closed already, when the call is cancelled.
            loop.call_soon_threadsafe(is_answered.set)

    call = client.containers.Wait.future(WaitContainerRequest(name=container_id))
    call.add_done_callback(tell)
    try:
        await is_answered.wait()
        return client.result(call).exit_code
    except NotFound:
        return None
    finally:
        call.cancel()


async def print_all(records: AsyncIterator[LogRecord], printer: Printer) -> None:
    """Print records until there are no more."""
    async for record in records:
        printer.print(record)


async def _follow(client: Client, container: Container, log: Path, printer: Printer, *, tail: int | None) -> None:
    await print_all(container_logs.follow(log, until=ended(client, container.id), tail=tail), printer)


def _parse_tail(text: str) -> int | None:
    if text == "all":
        return None
    if not text.removeprefix("-").isdecimal():
        raise click.BadParameter("give a number of lines or all", param_hint="--tail")
    return None if text.startswith("-") else int(text)
