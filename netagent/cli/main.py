"""The root of the command line: finding commands, ending with the right status, one line for every error."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from netagent import __version__
from netagent.cli.client import Client, Local, Place
from netagent.cli.output import complain, not_utf8
from netagent.errors import EnvironmentProblem, NetagentError

DEFAULT_SOCKET = "/run/netagent/agent.sock"

_COMMANDS = {
    "agent": ("netagent.cli.agent", "agent", "Run the agent of this host."),
    "attach": ("netagent.cli.attach", "attach", "Connect an existing network namespace."),
    "detach": ("netagent.cli.attach", "detach", "Disconnect what attach has connected."),
    "dns": ("netagent.cli.dns", "dns", "Look up what a name stands for."),
    "events": ("netagent.cli.events", "events", "Show what happened, or follow what happens."),
    "exec": ("netagent.cli.run", "execute", "Run a command in a running container."),
    "exposure": ("netagent.cli.exposure", "exposure", "Show what of this host can be reached."),
    "host": ("netagent.cli.host", "host", "Manage the hosts of the cluster."),
    "info": ("netagent.cli.info", "info", "Show how the agent is doing."),
    "inspect": ("netagent.cli.inspect", "inspect", "Show all of containers or networks as JSON."),
    "lab": ("netagent.lab.cli", "lab", "Run a cluster of hosts on this machine, in namespaces."),
    "logs": ("netagent.cli.logs", "logs", "Show a container's output."),
    "network": ("netagent.cli.network", "network", "Manage networks."),
    "port": ("netagent.cli.port", "port", "Show a container's published ports."),
    "ps": ("netagent.cli.ps", "ps", "List containers."),
    "publish": ("netagent.cli.publish", "publish", "Publish further ports of a container."),
    "restart": ("netagent.cli.container", "restart", "Stop containers and start them again."),
    "rm": ("netagent.cli.container", "remove", "Remove containers."),
    "run": ("netagent.cli.run", "run", "Run a command in a new container."),
    "start": ("netagent.cli.start", "start", "Start stopped containers."),
    "stats": ("netagent.cli.stats", "stats", "Show what containers have received and sent."),
    "stop": ("netagent.cli.container", "stop", "Stop running containers."),
    "store": ("netagent.cli.store", "store", "Copy, rebuild or accept the cluster's store."),
    "unpublish": ("netagent.cli.publish", "unpublish", "Take published ports back."),
    "update": ("netagent.cli.update", "update", "Change the limits of containers."),
}
"""Name -> module, attribute, one line of help. With the help here, ``--help`` need not import them all."""

_WITHOUT_AGENT = ("agent", "lab")

_F = TypeVar("_F", bound=Callable[..., Any])

_BROKEN_PIPE = 128 + 13
_INTERRUPTED = 128 + 2


class Root(click.Group):
    """The group ``netagent``: imports a command when it is asked for, and turns errors into exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in sorted(_COMMANDS.items())])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error becomes one line and an exit status."""
        try:
            return super().invoke(ctx)
        except NetagentError as error:
            complain(error)
            raise click.exceptions.Exit(1) from error
        except UnicodeEncodeError as error:
            complain(not_utf8(error))
            raise click.exceptions.Exit(1) from error
        except PermissionError as error:
            complain(EnvironmentProblem(f"permission denied: {error.filename}", hint="run as root"))
            raise click.exceptions.Exit(1) from error
        except BrokenPipeError as error:
            # What is still buffered must not fail once more when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(_BROKEN_PIPE) from error
        except KeyboardInterrupt as error:
            raise click.exceptions.Exit(_INTERRUPTED) from error


def _tls_option(name: str, variable: str, text: str) -> Callable[[_F], _F]:
    return click.option(name, type=click.Path(path_type=Path), envvar=variable, show_envvar=True, help=text)


@click.group(cls=Root)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="NETAGENT_SOCKET",
    default=DEFAULT_SOCKET,
    show_default=True,
    show_envvar=True,
    help="Where the agent of this machine listens.",
)
@click.option(
    "--host",
    metavar="tcp://HOST[:PORT]",
    envvar="NETAGENT_HOST",
    show_envvar=True,
    help="An agent on another machine, to which the client certificate of --tls-… is shown.",
)
@_tls_option("--tls-ca", "NETAGENT_TLS_CA", "The authority of that agent's certificate (PEM).")
@_tls_option("--tls-cert", "NETAGENT_TLS_CERT", "Our certificate, with a role.")
@_tls_option("--tls-key", "NETAGENT_TLS_KEY", "Its key.")
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, socket: Path, host: str | None, **tls: Path | None) -> None:
    """Connect containers across hosts."""
    ctx.obj = Client(_place(ctx, socket, host, tls))
    ctx.call_on_close(ctx.obj.close)


def _place(ctx: click.Context, socket: Path, host: str | None, tls: Mapping[str, Path | None]) -> Place:
    """Return where the agent is: an option goes before the environment, and there --host before --socket."""
    by_option = click.core.ParameterSource.COMMANDLINE
    has_socket = ctx.get_parameter_source("socket") is by_option
    if (
        not host
        or ctx.invoked_subcommand in _WITHOUT_AGENT
        or (has_socket and ctx.get_parameter_source("host") is not by_option)
    ):
        return Local(socket)
    if has_socket:
        raise click.UsageError("--socket and --host exclude each other")
    from netagent.cli.remote import parse_remote

    return parse_remote(host, ca=tls["tls_ca"], cert=tls["tls_cert"], key=tls["tls_key"])
