"""The agent as the command line sees it: stubs over its socket, and its errors as exceptions again."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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

CONNECT_TIMEOUT_S = 3.0

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
        errors.Exhausted,
        errors.Unavailable,
        errors.EnvironmentProblem,
    )
}

_Q = TypeVar("_Q")
_R = TypeVar("_R")


class Client:
    """A connection to the agent at ``socket_path``, made with the first call."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self._open: grpc.Channel | None = None

    def connect(self) -> "grpc.Channel":
        """Return the channel; at once Unavailable if no agent listens, EnvironmentProblem if it is not for us."""
        if self._open is None:
            self._probe()
            # gRPC would write its own lines about a lost connection to standard error.
            os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
            import grpc

            self._open = grpc.insecure_channel(f"unix:{self.socket_path.absolute()}", options=_OPTIONS)
        return self._open

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

    def _probe(self) -> None:
        """Connect once without gRPC: it is quicker in saying no, and says why."""
        path = self.socket_path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(CONNECT_TIMEOUT_S)
                probe.connect(os.fspath(path))
        except PermissionError as error:
            raise EnvironmentProblem(
                f"no permission to connect to the agent at {path}", hint="run as root, or join the group netagent"
            ) from error
        except TimeoutError as error:
            raise self._silent() from error
        except FileNotFoundError as error:
            raise self._absent() from error
        except OSError as error:
            if error.errno is None:  # Python's own complaint about sun_path
                raise InvalidRequest(f"socket path is too long: {path}", hint="at most 107 bytes") from error
            raise self._absent() from error

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
                return self._silent()
            case "UNAVAILABLE" | "CANCELLED":
                return Unavailable(f"lost the agent at {self.socket_path}", hint="has it been stopped?")
            case "UNIMPLEMENTED":
                return EnvironmentProblem(
                    "the agent does not know this request", hint="it is older than this command line: restart it"
                )
            case name:
                return NetagentError(f"{name}: {error.details()}")

    def _absent(self) -> Unavailable:
        return Unavailable(
            f"cannot reach the agent at {self.socket_path}", hint="is it running? start it with: netagent agent"
        )

    def _silent(self) -> Unavailable:
        return Unavailable(
            f"the agent at {self.socket_path} does not answer", hint="see its log, or restart it with: netagent agent"
        )
