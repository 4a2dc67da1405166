"""Who may call what over TCP: the role that a client's certificate names, against what a method does.

A role is a URI among the certificate's subject alternative names, ``netagent:role:operator`` or
``netagent:role:viewer``. A viewer may call the methods whose contract says that they change nothing
(``idempotency_level = NO_SIDE_EFFECTS``), an operator all. A method that says nothing is thus for operators alone, and
a certificate without a role, such as a host's for etcd, is good for nothing here.
"""

from collections.abc import Iterable, Mapping

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from netagent.errors import NotPermitted

OPERATOR = "netagent:role:operator"
VIEWER = "netagent:role:viewer"
_ROLES = (OPERATOR, VIEWER)


def harmless_methods(files: Iterable[FileDescriptor]) -> frozenset[str]:
    """Return those methods, as Service/Method, that change nothing."""
    return frozenset(
        f"{service.name}/{method.name}"
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    )


class Roles:
    """Lets clients in by their certificates. Those of ``harmless`` are the methods that a viewer may call."""

    def __init__(self, harmless: frozenset[str]) -> None:
        self._harmless = harmless

    def admit(self, method: str, identity: Mapping[str, Iterable[bytes]]) -> str:
        """Return who calls ``method``, for the log; NotPermitted if the certificate does not allow it.

        ``identity`` is gRPC's authentication context, of which TLS vouches for every entry.
        """
        names = [name.decode(errors="replace") for name in identity.get("x509_common_name", ())]
        who = _printable(names[0] if names else "a client without a name")
        uris = {uri.decode(errors="replace") for uri in identity.get("peer_uri", ())}
        role = next((role for role in _ROLES if role in uris), None)
        if role is None:
            raise NotPermitted(
                f"the certificate of {who} has no role", hint="make one by make-certificates DIRECTORY operator:NAME"
            )
        if role == VIEWER and method not in self._harmless:
            raise NotPermitted(f"{who} is a viewer and may not call {method}", hint="use an operator's certificate")
        return f"{role.rpartition(':')[2]} {who}"

    def changes(self, method: str) -> bool:
        """Tell whether ``method`` may change anything."""
        return method not in self._harmless


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:64])
