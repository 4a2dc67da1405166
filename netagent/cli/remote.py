"""An agent on another machine: ``tcp://HOST[:PORT]``, by TLS with a client certificate, and what to say if it fails.

A plain connection is tried before gRPC's: it is quicker in saying no, and says why.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netagent.certificates import Identity
from netagent.errors import EnvironmentProblem, InvalidRequest, NetagentError, Unavailable

if TYPE_CHECKING:
    import grpc

DEFAULT_PORT = 7947
_URL = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?/?")

_WRONG_NAME = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_EXPIRED = {10}  # X509_V_ERR_CERT_HAS_EXPIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Where an agent is, and what we prove with that we may talk to it."""

    host: str
    port: int
    identity: Identity

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def probe(self, within_s: float) -> None:
        """Connect once, as far as the agent's first word; NetagentError names what is in the way."""
        self.identity.load()
        context = ssl.create_default_context(cafile=str(self.identity.ca))
        context.load_cert_chain(self.identity.cert, self.identity.key)
        context.set_alpn_protocols(["h2"])
        with (
            self._explained(),
            socket.create_connection((self.host, self.port), timeout=within_s) as connection,
            context.wrap_socket(connection, server_hostname=self.host) as secured,
        ):
            # In TLS 1.3 a client learns by the first read whether its certificate was taken.
            if not secured.recv(1):
                raise self._refused()

    def channel(self, options: tuple[tuple[str, int], ...]) -> "grpc.Channel":
        """Return a channel; it connects when used."""
        import grpc

        material = self.identity.load()
        credentials = grpc.ssl_channel_credentials(material.ca, material.key, material.cert)
        return grpc.secure_channel(str(self), credentials, options=options)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise self._not_trusted(error) from error
        except ssl.SSLError as error:
            raise EnvironmentProblem(
                f"{self} does not speak TLS as an agent does: {error.reason}",
                hint="is it the agent's --listen address?",
            ) from error
        except socket.gaierror as error:
            raise InvalidRequest(f"unknown host {self.host}: {error.strerror}", hint="give its address") from error
        except TimeoutError as error:
            raise Unavailable(
                f"{self} does not answer", hint="is the machine up, and the port open in its firewall?"
            ) from (error)
        except ConnectionResetError as error:
            raise self._refused() from error
        except OSError as error:
            raise Unavailable(
                f"cannot reach the agent at {self}: {error.strerror}",
                hint=f"start it there with: netagent agent --listen :{self.port} and its certificate",
            ) from error

    def _not_trusted(self, error: ssl.SSLCertVerificationError) -> NetagentError:
        if error.verify_code in _WRONG_NAME:
            return EnvironmentProblem(
                f"the certificate of the agent at {self} is not for {self.host}",
                hint="use a name or address that it is for, or make one for this too",
            )
        if error.verify_code in _EXPIRED:
            return EnvironmentProblem(
                f"the certificate of the agent at {self} has expired",
                hint="renew it there: the agent takes it without a restart",
            )
        return EnvironmentProblem(
            f"the certificate of the agent at {self} is refused: {error.verify_message}",
            hint=f"is {self.identity.ca} the authority that made it? give the right one by --tls-ca",
        )

    def _refused(self) -> EnvironmentProblem:
        try:
            self.identity.days_left("client")
        except EnvironmentProblem as error:
            reason = f"it does not take our certificate; {error.message}"
        else:
            reason = f"its authority (tls.ca_file there) is another one than that of {self.identity.cert}"
        return EnvironmentProblem(
            f"the agent at {self} has closed the connection: {reason}",
            hint="make one by make-certificates DIRECTORY operator:NAME",
        )


def parse_remote(url: str, *, ca: Path | None, cert: Path | None, key: Path | None) -> Remote:
    """Return the agent that ``url`` and the files of a certificate name; InvalidRequest."""
    match = _URL.fullmatch(url)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise InvalidRequest(f"invalid host {url!r}", hint=f"write tcp://HOST[:{DEFAULT_PORT}]")
    if ca is None or cert is None or key is None:
        raise InvalidRequest(
            f"no certificate for {url}",
            hint="give --tls-ca, --tls-cert and --tls-key, or NETAGENT_TLS_CA, _CERT and _KEY",
        )
    return Remote(host=match["host"].strip("[]"), port=port, identity=Identity(cert=cert, key=key, ca=ca))
