"""The agent as the command line sees it: stubs over a connection, and its errors as exceptions again."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from netagent import errors
from netagent.errors import EnvironmentProblem, InvalidRequest, NetagentError, Unavailable
from netagent.v1 import ERROR_EXIT_STATUS, ERROR_HINT, ERROR_KIND

if TYPE_CHECKING:
    import grpc

    from netagent.v1.agent_pb2_grpc import AgentStub
    from netagent.v1.containers_pb2_grpc import ContainersStub
    from netagent.v1.events_pb2_grpc import EventsStub
    from netagent.v1.firewall_pb2_grpc import FirewallStub
    from netagent.v1.hosts_pb2_grpc import HostsStub
    from netagent.v1.names_pb2_grpc import NamesStub
    from netagent.v1.networks_pb2_grpc import NetworksStub
    from netagent.v1.stats_pb2_grpc import StatsStub

CONNECT_TIMEOUT_S = 10.0
"""An agent on a busy machine may stand still for seconds."""

_OPTIONS = (
    # Despite their names the first of these bounds how long one connection attempt may take.
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 64 << 20),
)
_KINDS: dict[str, type[NetagentError]] = {
    kind.__name__: kind
    for kind in (
        errors.InvalidRequest,
        errors.NotFound,
        errors.AlreadyExists,
        errors.Conflict,
        errors.NotPermitted,
        errors.Exhausted,
        errors.Unavailable,
        errors.EnvironmentProblem,
    )
}

_Q = TypeVar("_Q")
_R = TypeVar("_R")


class Place(Protocol):
    """Where an agent is."""

    def probe(self, within_s: float) -> None:
        """Connect once without gRPC, which is quicker in saying no, and says why."""

    def channel(self, options: tuple[tuple[str, int], ...]) -> "grpc.Channel":
        """Return a channel; it connects when used."""


class Local:
    """The agent of this machine, at a unix socket."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def __str__(self) -> str:
        return str(self._path)

    def probe(self, within_s: float) -> None:
        """At once Unavailable if no agent listens, EnvironmentProblem if it is not for us."""
        path = self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(within_s)
                probe.connect(os.fspath(path))
        except PermissionError as error:
            raise EnvironmentProblem(
                f"no permission to connect to the agent at {path}", hint="run as root, or join the group netagent"
            ) from error
        except TimeoutError as error:
            raise _silent(self) from error
        except FileNotFoundError as error:
            raise _absent(self) from error
        except OSError as error:
            if error.errno is None:  # Python's own complaint about sun_path
                raise InvalidRequest(f"socket path is too long: {path}", hint="at most 107 bytes") from error
            raise _absent(self) from error

    def channel(self, options: tuple[tuple[str, int], ...]) -> "grpc.Channel":
        """Return a channel to the socket."""
        import grpc

        return grpc.insecure_channel(f"unix:{self._path.absolute()}", options=options)


class Client:
    """A connection to the agent at ``place``, made with the first call."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._open: grpc.Channel | None = None

    def connect(self) -> "grpc.Channel":
        """Return the channel; NetagentError at once if the agent cannot be reached, or not by us."""
        if self._open is None:
            # gRPC would write its own lines about a lost connection to standard error.
            os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
            self.place.probe(CONNECT_TIMEOUT_S)
            self._open = self.place.channel(_OPTIONS)
        return self._open

    def require_local(self, what: str) -> None:
        """Raise InvalidRequest if the agent is on another machine, where the files are that ``what`` needs."""
        if not isinstance(self.place, Local):
            raise InvalidRequest(f"{what} works on the host itself only", hint="log in there, and leave out --host")

    def path(self, text: str) -> str:
        """Return the absolute path on the agent's machine that ``text`` means."""
        path = Path(text)
        if not path.is_absolute() and not isinstance(self.place, Local):
            raise InvalidRequest(f"{text} is a path on another machine", hint="give an absolute one")
        return str(path.absolute())

    def close(self) -> None:
        """End the connection."""
        if self._open is not None:
            self._open.close()

    @cached_property
    def agent(self) -> "AgentStub":
        """The service Agent."""
        from netagent.v1.agent_pb2_grpc import AgentStub

        return AgentStub(self.connect())

    @cached_property
    def containers(self) -> "ContainersStub":
        """The service Containers."""
        from netagent.v1.containers_pb2_grpc import ContainersStub

        return ContainersStub(self.connect())

    @cached_property
    def events(self) -> "EventsStub":
        """The service Events."""
        from netagent.v1.events_pb2_grpc import EventsStub

        return EventsStub(self.connect())

    @cached_property
    def firewall(self) -> "FirewallStub":
        """The service Firewall."""
        from netagent.v1.firewall_pb2_grpc import FirewallStub

        return FirewallStub(self.connect())

    @cached_property
    def hosts(self) -> "HostsStub":
        """The service Hosts."""
        from netagent.v1.hosts_pb2_grpc import HostsStub

        return HostsStub(self.connect())

    @cached_property
    def names(self) -> "NamesStub":
        """The service Names."""
        from netagent.v1.names_pb2_grpc import NamesStub

        return NamesStub(self.connect())

    @cached_property
    def networks(self) -> "NetworksStub":
        """The service Networks."""
        from netagent.v1.networks_pb2_grpc import NetworksStub

        return NetworksStub(self.connect())

    @cached_property
    def stats(self) -> "StatsStub":
        """The service Stats."""
        from netagent.v1.stats_pb2_grpc import StatsStub

        return StatsStub(self.connect())

    def call(self, method: "grpc.UnaryUnaryMultiCallable[_Q, _R]", request: _Q) -> _R:
        """Return the answer to ``request``, or raise the NetagentError that the agent answered with."""
        self.connect()
        with self._errors():
            return method(request)

    def stream(self, method: "grpc.UnaryStreamMultiCallable[_Q, _R]", request: _Q) -> Iterator[_R]:
        """Yield the answers to ``request`` as they come."""
        self.connect()
        with self._errors():
            yield from method(request)

    def result(self, future: "grpc.Future[_R]", *, timeout_s: float | None = None) -> _R:
        """Return the answer to a call that was begun with ``method.future``; TimeoutError if it does not come."""
        import grpc

        try:
            with self._errors():
                return future.result(timeout=timeout_s)
        except grpc.FutureTimeoutError as error:
            raise TimeoutError from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import grpc

        try:
            yield
        except grpc.RpcError as error:
            raise self._error_of(error) from error

    def _error_of(self, error: Any) -> NetagentError:
        metadata = dict(error.trailing_metadata() or ())
        if kind := metadata.get(ERROR_KIND):
            status = metadata.get(ERROR_EXIT_STATUS)
            return _KINDS.get(str(kind), NetagentError)(
                error.details(),
                hint=metadata.get(ERROR_HINT, b"").decode(errors="replace"),
                **({} if status is None else {"exit_status": int(status)}),
            )
        match error.code().name:
            case "UNAVAILABLE" if "failed to connect" in error.details():
                return _silent(self.place)
            case "UNAVAILABLE" | "CANCELLED":
                return Unavailable(f"lost the agent at {self.place}", hint="has it been stopped?")
            case "UNIMPLEMENTED":
                return EnvironmentProblem(
                    "the agent does not know this request", hint="it is older than this command line: restart it"
                )
            case name:
                return NetagentError(f"{name}: {error.details()}")


def _absent(place: Place) -> Unavailable:
    return Unavailable(f"cannot reach the agent at {place}", hint="is it running? start it with: netagent agent")


def _silent(place: Place) -> Unavailable:
    return Unavailable(f"the agent at {place} does not answer", hint="see its log, or restart it with: netagent agent")
