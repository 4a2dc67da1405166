"""The TCP door: where it listens, its limits, and certificates that are renewed while it is open.

TLS 1.2 or later, which gRPC takes care of, with client certificates required; there is no form without.
"""

import logging
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import grpc

from netagent.certificates import Identity
from netagent.errors import EnvironmentProblem, InvalidRequest, NetagentError

log = logging.getLogger(__name__)

DEFAULT_PORT = 7947
WARN_DAYS = 14
"""A certificate that ends within so many days is worth a warning a day."""
_DAY_S = 86400.0

REMOTE_OPTIONS = (
    ("grpc.so_reuseport", 0),
    # Who connects and says nothing, or asks for more at once than anybody needs, must not hold up the others
    # (CVE-2023-41378, CVE-2023-44487).
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_allowed_incoming_connections", 256),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # A certificate is looked at when its client connects.
    ("grpc.max_connection_age_ms", 3_600_000),
)

_LISTEN = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9_.-]+))?(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """A local address, or a name for one, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Return the place that ``[ADDRESS][:PORT]`` means; without an address all of IPv6 and IPv4. InvalidRequest."""
    match = _LISTEN.fullmatch(text)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not text or not 0 < port < 65536:
        raise InvalidRequest(
            f"invalid address to listen at: {text!r}", hint=f"write ADDRESS:{DEFAULT_PORT}, an IPv6 address in brackets"
        )
    return Listen(host=(match["host"] or "[::]").strip("[]"), port=port)


def check_free(listen: Listen) -> None:
    """Raise EnvironmentProblem if nobody can listen there: gRPC would not say why."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot listen at {listen}: {error.strerror}",
            hint="choose an address of this host and a port that is free",
        ) from error


class Renewed:
    """The credentials of a server whose files are looked at with every connection.

    New ones are taken when they are a certificate, its key and an authority that fit together; half-renewed ones are
    left for the next connection.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._stamp = identity.stamp if _exist(identity) else ()
        self._refused: tuple[tuple[int, int], ...] = ()
        self._warn_at = 0.0

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a server is opened with; EnvironmentProblem if the files cannot be used."""
        first = self._load()
        self._warn()
        # The stubs do not know that None stands for "as before".
        fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._changed)
        return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=True)

    def _load(self) -> grpc.ServerCertificateConfiguration:
        material = self._identity.load()
        return grpc.ssl_server_certificate_configuration([(material.key, material.cert)], material.ca)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration if the files changed. Called by gRPC's threads, and must not raise."""
        try:
            self._warn()
            stamp = self._identity.stamp
            if stamp in (self._stamp, self._refused):
                return None
            self._refused = stamp
            fresh = self._load()
        except (NetagentError, OSError) as error:
            log.warning("the certificate in use stays: %s", error)
            return None
        self._stamp, self._refused, self._warn_at = stamp, (), 0.0
        log.info("certificate %s was renewed", self._identity.cert)
        self._warn()
        return fresh

    def _warn(self) -> None:
        if time.monotonic() < self._warn_at:
            return
        self._warn_at = time.monotonic() + _DAY_S
        try:
            days = self._identity.days_left("server")
        except NetagentError as error:
            log.warning("clients will refuse this agent: %s", error)
            return
        if days < WARN_DAYS:
            log.warning("certificate %s ends in %.1f days", self._identity.cert, days)


def _exist(identity: Identity) -> bool:
    return all(path.exists() for path in (identity.cert, identity.key, identity.ca))
