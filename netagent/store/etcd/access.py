"""Where an etcd cluster is and how to get in: ``etcd://HOST[:PORT],...`` or, with TLS, ``etcds://...``."""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from netagent.certificates import read_pem, tls_context
from netagent.errors import InvalidRequest

DEFAULT_PORT = 2379
_ENDPOINT = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[a-zA-Z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")

_SETTINGS = "see the store's TLS settings"
_CHANNEL_OPTIONS = (
    # Channels to one address share a connection unless told not to; a large listing must not hold up a watch
    # (etcd #15402).
    ("grpc.use_local_subchannel_pool", 1),
    # Pings notice a peer that went without a word. etcd closes connections that ping more often than every 5 s or
    # with no call open ("too_many_pings").
    ("grpc.keepalive_time_ms", 10_000),
    # Not grpc.keepalive_timeout_ms: grpcio 1.85 goes by this one all the same, whose default is a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),
    # The environment's proxy is meant for the web.
    ("grpc.enable_http_proxy", 0),
    # Service configuration from DNS TXT records could switch on retries, which are ours to decide.
    ("grpc.service_config_disable_resolution", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdAccess:
    """Endpoints as ``host:port`` and credentials. Certificate files are read at each connect: they may be renewed."""

    endpoints: tuple[str, ...]
    is_tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)

    def open_channel(self, endpoint: str) -> grpc.aio.Channel:
        """Return a channel of its own to ``endpoint``; it connects when used."""
        if not self.is_tls:
            return grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        self.tls_context()
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca), private_key=_read(self.key), certificate_chain=_read(self.cert)
        )
        return grpc.aio.secure_channel(endpoint, credentials, options=_CHANNEL_OPTIONS)

    def tls_context(self) -> ssl.SSLContext:
        """Return what the files amount to; EnvironmentProblem names those that are of no use."""
        for file in (self.ca, self.cert, self.key):
            _read(file)
        return tls_context(ssl.PROTOCOL_TLS_CLIENT, ca=self.ca, cert=self.cert, key=self.key, hint=_SETTINGS)

    def __str__(self) -> str:
        return f"{'etcds' if self.is_tls else 'etcd'}://{','.join(self.endpoints)}"


def parse_access(
    url: str,
    *,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    user: str = "",
    password: str = "",
) -> EtcdAccess:
    """Return the access that ``url`` and the credentials describe; InvalidRequest names what is wrong."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("etcd", "etcds"):
        raise InvalidRequest(f"invalid store {url!r}", hint="write etcd://HOST:PORT,... or, with TLS, etcds://...")
    is_tls = scheme == "etcds"
    if (ca or cert or key) and not is_tls:
        raise InvalidRequest(f"store {url!r} does not use TLS, but certificates are given", hint="write etcds://...")
    if bool(cert) != bool(key):
        raise InvalidRequest(f"store {url!r} needs both or none of certificate and key")
    endpoints = tuple(_parse_endpoint(part, url) for part in rest.rstrip("/").split(","))
    return EtcdAccess(endpoints=endpoints, is_tls=is_tls, ca=ca, cert=cert, key=key, user=user, password=password)


def _parse_endpoint(text: str, url: str) -> str:
    match = _ENDPOINT.fullmatch(text)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise InvalidRequest(
            f"invalid endpoint {text!r} in store {url!r}", hint="write HOST:PORT, and an IPv6 address in brackets"
        )
    return f"{match['host']}:{port}"


def _read(path: Path | None) -> bytes | None:
    return None if path is None else read_pem(path, hint=_SETTINGS)
