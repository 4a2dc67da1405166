"""A certificate, its key and the authority it is checked against, as PEM files that may be renewed at any time.

What is wrong with them is found by a TLS handshake of the certificate with itself, in memory: what a peer would see,
in OpenSSL's words, and before one does.
"""

import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from netagent.errors import EnvironmentProblem

_ROUNDS = 8
"""Turns of a handshake with every message at hand: TLS 1.3 needs three."""

Use = Literal["server", "client"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The content of the files, as gRPC takes it."""

    cert: bytes
    key: bytes
    ca: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Where certificate, key and authority are."""

    cert: Path
    key: Path
    ca: Path

    @property
    def stamp(self) -> tuple[tuple[int, int], ...]:
        """What changes with every renewal. Raises OSError."""
        return tuple((found.st_ino, found.st_mtime_ns) for found in map(Path.stat, (self.cert, self.key, self.ca)))

    def load(self) -> Material:
        """Return what the files hold; EnvironmentProblem names one that cannot be used, or a key of another one."""
        material = Material(cert=_read(self.cert), key=_read(self.key), ca=_read(self.ca))
        self._context(ssl.PROTOCOL_TLS_SERVER)
        return material

    def days_left(self, use: Use) -> float:
        """Return for how long the certificate is good yet; EnvironmentProblem if it is not, for this use, here."""
        client, server = self._context(ssl.PROTOCOL_TLS_CLIENT), self._context(ssl.PROTOCOL_TLS_SERVER)
        client.check_hostname = False
        client.verify_mode, server.verify_mode = (
            (ssl.CERT_REQUIRED, ssl.CERT_NONE) if use == "server" else (ssl.CERT_NONE, ssl.CERT_REQUIRED)
        )
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = (
            client.wrap_bio(to_client, to_server, server_hostname="self"),
            server.wrap_bio(to_server, to_client, server_side=True),
        )
        try:
            for end in ends * _ROUNDS:
                _advance(end)
        except ssl.SSLCertVerificationError as error:
            raise EnvironmentProblem(f"certificate {self.cert} is of no use: {error.verify_message}") from error
        shown = ends[0 if use == "server" else 1].getpeercert() or {}
        return (ssl.cert_time_to_seconds(str(shown["notAfter"])) - time.time()) / 86400

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, OSError) as error:
            raise EnvironmentProblem(f"{self.ca} holds no certificate of an authority", hint=_MAKE) from error
        try:
            context.load_cert_chain(self.cert, self.key)
        except (ssl.SSLError, OSError) as error:
            raise EnvironmentProblem(
                f"{self.cert} and {self.key} are no certificate and its key", hint=_MAKE
            ) from error
        return context


_MAKE = "PEM files are needed, as deploy/examples/etcd/make-certificates makes them"


def _advance(end: ssl.SSLObject) -> None:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror}", hint=_MAKE) from error
