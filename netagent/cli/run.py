"""``netagent run`` and ``netagent exec``: commands in containers, with our own input, output and exit status.

The agent makes and starts a container; its input and output pass between us and its monitor, without the agent.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from netagent.cli.client import Client
from netagent.cli.connection import connection_options, label_options
from netagent.cli.output import complain, format_option, not_utf8, print_json_lines
from netagent.errors import Conflict, EnvironmentProblem, InvalidRequest, NetagentError, NotFound
from netagent.v1.agent_pb2 import InfoRequest
from netagent.v1.containers_pb2 import (
    Connection,
    CreateContainerRequest,
    CreateContainerResponse,
    InspectContainerRequest,
    KillContainerRequest,
    RemoveContainerRequest,
    StartContainerRequest,
    WaitContainerRequest,
    WaitContainerResponse,
)

if TYPE_CHECKING:
    import grpc

    from netagent.runtime.attach import Streams

FAILED = 125
"""Our own failures, to be told from those of the command; 126 and 127 are for commands that cannot run."""

_SETTLE_TIMEOUT_S = 10.0
"""How long the agent may take to deal with a container's end before we end without it."""

_stdio_options = (
    click.option("-i", "--interactive", is_flag=True, help="Pass standard input."),
    click.option("-t", "--tty", "terminal", is_flag=True, help="Give it a terminal."),
    click.option("-e", "--env", "environment", multiple=True, metavar="K[=V]", help="Environment variable."),
    click.option("-w", "--workdir", "working_directory", default="", metavar="DIR", help="Working directory."),
)


_name_options = (
    click.option("--dns", multiple=True, metavar="IP", help="Nameserver for names outside, instead of the host's."),
    click.option("--dns-search", multiple=True, metavar="DOMAIN", help="Search domain; a dot for none."),
    click.option("--dns-option", "--dns-opt", "dns_options", multiple=True, help="Option of resolv.conf."),
    click.option(
        "--add-host",
        "extra_hosts",
        multiple=True,
        metavar="NAME:IP",
        help="Line of /etc/hosts; the address host-gateway is the host's own.",
    ),
    click.option("--sysctl", "sysctls", multiple=True, metavar="K=V", help="Setting of the kernel inside."),
    click.option(
        "--cap-add", multiple=True, metavar="CAPABILITY", help="Give a capability, such as NET_ADMIN, or ALL."
    ),
    click.option("--cap-drop", multiple=True, metavar="CAPABILITY", help="Take a capability away, or ALL."),
    click.option("--link", "links", multiple=True, metavar="NAME[:ALIAS]", help="Know a container under another name."),
)


class _Misuse(click.UsageError):
    exit_code = FAILED


class CommandInContainer(click.Command):
    """A command whose exit status is another's, so that its own failures need statuses of their own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # What follows the first word that is no option belongs to the container, dashes and all.
        kwargs.setdefault("context_settings", {"allow_interspersed_args": False})
        super().__init__(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; a wrong usage ends with 125."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _Misuse(error.format_message(), error.ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a refusal ends with 125, or 126 or 127 if the agent says so."""
        try:
            return super().invoke(ctx)
        except NetagentError as error:
            complain(error)
            raise click.exceptions.Exit(error.facts.get("exit_status", FAILED)) from error
        except UnicodeEncodeError as error:
            complain(not_utf8(error))
            raise click.exceptions.Exit(FAILED) from error


def _with_stdio(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_stdio_options):
        command = option(command)
    return command


def _with_names(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_name_options):
        command = option(command)
    return command


@click.command(cls=CommandInContainer)
@click.option("--name", default="", help="Name of the container; chosen if not given.")
@connection_options
@label_options
@click.option("-h", "--hostname", default="", help="Host name inside.")
@click.option("-v", "--volume", "mounts", multiple=True, metavar="HOST:DIR[:ro]", help="Show a directory inside.")
@click.option("--rootfs", default="", metavar="DIR", help="Root directory; the host's own if not given.")
@_with_stdio
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id.")
@_with_names
@click.option("--rm", "auto_remove", is_flag=True, help="Remove the container once it has exited.")
@format_option()
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND...")
@click.pass_obj
def run(
    client: Client,
    /,
    connection: Connection,
    name: str,
    hostname: str,
    mounts: tuple[str, ...],
    rootfs: str,
    interactive: bool,
    terminal: bool,
    environment: tuple[str, ...],
    working_directory: str,
    detach: bool,
    auto_remove: bool,
    form: str,
    command: tuple[str, ...],
    labels: dict[str, str],
    **names: tuple[str, ...],
) -> None:
    """Run COMMAND in a new container."""
    if not detach:
        client.require_local("run without -d")
        _refuse_missing_terminal(interactive=interactive, terminal=terminal)
    request = CreateContainerRequest(
        name=name,
        connection=connection,
        command=command,
        hostname=hostname,
        environment=[f"{key}={value}" for key, value in _environment(environment)],
        mounts=mounts,
        rootfs=client.path(rootfs) if rootfs else "",
        terminal=terminal,
        interactive=interactive,
        auto_remove=auto_remove,
        working_directory=working_directory,
        labels=labels,
        **names,
    )
    created = client.call(client.containers.Create, request)
    for warning in created.warnings:
        click.echo(f"WARNING: {warning}", err=True)
    if not detach:
        raise click.exceptions.Exit(_run_attached(client, created, request))
    _start(client, created, request)
    if form == "json":
        print_json_lines([{"Id": created.id, "Name": created.name}])
    else:
        click.echo(created.id)


def _start(client: Client, created: CreateContainerResponse, request: CreateContainerRequest) -> None:
    try:
        client.call(client.containers.Start, StartContainerRequest(name=created.id))
    except NetagentError:
        if request.auto_remove:
            _discard(client, created.id)
        raise
    except KeyboardInterrupt:
        _discard(client, created.id)
        raise


def _run_attached(client: Client, created: CreateContainerResponse, request: CreateContainerRequest) -> int:
    """Start a created container with our input and output; return its exit status once it has ended."""
    with _connect(client, created) as streams:
        if request.terminal:
            streams.resize()
        _start(client, created, request)
        end = client.containers.Wait.future(WaitContainerRequest(name=created.id))
        streams.run(
            terminal=request.terminal,
            interactive=request.interactive,
            proxy=lambda number: _forward(client, created.id, number),
        )
        code = streams.exit_code()
    # The agent's answer comes after it has dealt with the end: then the state is exited, or with --rm the name free.
    return _await(client, end, code)


def _connect(client: Client, created: CreateContainerResponse) -> "Streams":
    """Connect to the container's input and output; a container that we cannot connect to is removed again."""
    from netagent.runtime.attach import Streams
    from netagent.runtime.layout import Layout

    directory = Path(created.directory)
    try:
        return Streams.connect(Layout(directory).attach)
    except PermissionError as error:
        _discard(client, created.id)
        raise EnvironmentProblem(
            f"no permission for the container's input and output in {directory}",
            hint="run as root, or in the background with -d",
        ) from error
    except NotFound:
        _discard(client, created.id)
        raise


def _await(client: Client, end: "grpc.Future[WaitContainerResponse]", code: int | None) -> int:
    """Return the exit status from the monitor or else from the agent, once the agent has dealt with the end."""
    try:
        answer = client.result(end, timeout_s=None if code is None else _SETTLE_TIMEOUT_S)
    except (NetagentError, TimeoutError):
        if code is None:
            raise
        return code
    return answer.exit_code if code is None else code


def _discard(client: Client, container_id: str) -> None:
    try:
        client.call(client.containers.Remove, RemoveContainerRequest(name=container_id, force=True))
    except NetagentError as error:
        complain(error)


def _forward(client: Client, container_id: str, number: int) -> None:
    """Pass a signal of ours on; a container that has ended meanwhile needs it no more."""
    try:
        client.call(client.containers.Kill, KillContainerRequest(name=container_id, signal=number))
    except (NotFound, Conflict):
        return


@click.command(name="exec", cls=CommandInContainer)
@_with_stdio
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND...")
@click.pass_obj
def execute(
    client: Client,
    interactive: bool,
    terminal: bool,
    environment: tuple[str, ...],
    working_directory: str,
    name: str,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND in a running container."""
    from netagent.runtime.execute import exec_arguments
    from netagent.runtime.execute import execute as run_to_end
    from netagent.runtime.layout import Layout
    from netagent.runtime.programs import find_programs

    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise InvalidRequest("no command given", hint="netagent exec NAME -- COMMAND...")
    client.require_local("exec")
    _refuse_missing_terminal(interactive=interactive, terminal=terminal)
    container = client.call(client.containers.Inspect, InspectContainerRequest(name=name))
    if container.kind != "run":
        raise Conflict(f"container {container.name} was not started by netagent", hint="use nsenter")
    if container.state != "running":
        raise Conflict(f"container {container.name} is not running", hint=f"netagent start {container.name}")
    run_dir = Path(client.call(client.agent.Info, InfoRequest()).run_dir)
    client.close()
    log = Layout(Path(container.directory)).directory / f"exec-{os.getpid()}.log"
    arguments = exec_arguments(
        find_programs().runtime,
        run_dir,
        container.id,
        argv,
        log=log,
        environment=_environment(environment),
        working_directory=working_directory or None,
        terminal=terminal,
    )
    raise click.exceptions.Exit(run_to_end(arguments, log=log, interactive=interactive))


def _environment(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    from netagent.runtime.spec import parse_environment

    return parse_environment(texts, os.environ)


def _refuse_missing_terminal(*, interactive: bool, terminal: bool) -> None:
    if interactive and terminal and not sys.stdin.isatty():
        raise InvalidRequest("the input device is not a TTY", hint="leave out -t")
