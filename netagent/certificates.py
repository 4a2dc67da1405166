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
        material = Material(cert=read_pem(self.cert), key=read_pem(self.key), ca=read_pem(self.ca))
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
        return tls_context(protocol, ca=self.ca, cert=self.cert, key=self.key)


_MAKE = "PEM files are needed, as deploy/examples/etcd/make-certificates makes them"


def tls_context(
    protocol: int, *, ca: Path | None, cert: Path | None, key: Path | None, hint: str = _MAKE
) -> ssl.SSLContext:
    """Return what the files amount to; without ``ca`` with the system's authorities.

    EnvironmentProblem names those that are of no use.
    """
    context = ssl.SSLContext(protocol)
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
    except (ssl.SSLError, OSError) as error:
        raise EnvironmentProblem(f"{ca} holds no certificate of an authority", hint=hint) from error
    try:
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        raise EnvironmentProblem(f"{cert} and {key} are no certificate and its key", hint=hint) from error
    return context


def read_pem(path: Path, *, hint: str = _MAKE) -> bytes:
    """Return the content of a file; EnvironmentProblem says why it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentProblem(f"cannot read {path}: {error.strerror}", hint=hint) from error


def _advance(end: ssl.SSLObject) -> None:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return
