"""Why no TLS connection to etcd comes about: gRPC does not say, a handshake of our own with the same files does."""

import socket
import ssl

from netagent.certificates import Identity
from netagent.errors import EnvironmentProblem
from netagent.store.etcd.access import EtcdAccess


def refusal(access: EtcdAccess, endpoint: str, *, within_s: float) -> str:
    """Return who refuses whose certificate and why, empty if neither does. Blocks for as long as the endpoint does."""
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")
    context = access.tls_context()
    context.set_alpn_protocols(["h2"])
    is_handshaking = False
    try:
        with socket.create_connection((host, int(port)), timeout=within_s) as connection:
            is_handshaking = True
            with context.wrap_socket(connection, server_hostname=host) as tls:
                is_handshaking = False
                # By TLS 1.3 the server looks at our certificate when the handshake is over for us (RFC 8446, 4.4.2).
                tls.recv(1)
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is refused, {error.verify_message}"
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError):
        # Which of these a closed connection is depends on the version of Python, and on what was read by then.
        return "it does not speak TLS" if is_handshaking else ""
    except ssl.SSLError as error:
        if error.reason == "WRONG_VERSION_NUMBER":
            return "it does not speak TLS"
        return f"it refuses {access.cert or 'clients without a certificate'}, {_own_fault(access) or _words(error)}"
    except OSError:
        return ""
    return ""


def _own_fault(access: EtcdAccess) -> str:
    """Return that the client's certificate is not good at this time: the alert of the server does not say."""
    if access.ca is None or access.cert is None or access.key is None:
        return ""
    try:
        Identity(cert=access.cert, key=access.key, ca=access.ca).days_left("client")
    except EnvironmentProblem as problem:
        reason = problem.message.rpartition(": ")[2]
        return reason if "expired" in reason or "not yet valid" in reason else ""
    return ""


def _words(error: ssl.SSLError) -> str:
    return (error.reason or "TLS failed").lower().replace("_", " ")
