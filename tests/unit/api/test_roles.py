"""Which role may call what: every method of the contract has its place in this table."""

import pytest

from netagent.api.roles import OPERATOR, VIEWER, Roles, harmless_methods
from netagent.api.server import _FILES
from netagent.errors import NotPermitted

VIEWERS = {
    "Agent/Info",
    "Containers/Inspect",
    "Containers/List",
    "Containers/Wait",
    "Events/Watch",
    "Firewall/Exposure",
    "Hosts/Inspect",
    "Hosts/List",
    "Names/Resolve",
    "Networks/Inspect",
    "Networks/List",
    "Stats/Containers",
    "Stats/Networks",
}
ALL = {
    f"{service.name}/{method.name}"
    for file in _FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ROLES = Roles(harmless_methods(file.DESCRIPTOR for file in _FILES))


def client(*uris: str, name: str = "anna") -> dict[str, list[bytes]]:
    return {"x509_common_name": [name.encode()], "peer_uri": [uri.encode() for uri in uris]}


def test_a_viewer_may_call_what_changes_nothing_and_an_operator_all() -> None:
    allowed = {OPERATOR: set(), VIEWER: set()}
    for role, methods in allowed.items():
        for method in ALL:
            try:
                ROLES.admit(method, client(role))
            except NotPermitted:
                continue
            methods.add(method)
    assert allowed == {OPERATOR: ALL, VIEWER: VIEWERS}


@pytest.mark.parametrize(
    "uris", [(), ("netagent:role:Operator",), ("netagent:role:operator2",), ("https://x/netagent:role:operator",)]
)
def test_what_only_looks_like_a_role_is_none(uris: tuple[str, ...]) -> None:
    with pytest.raises(NotPermitted, match="the certificate of anna has no role"):
        ROLES.admit("Agent/Info", client(*uris))


def test_a_role_in_the_name_of_a_certificate_is_none() -> None:
    with pytest.raises(NotPermitted):
        ROLES.admit("Agent/Info", {"x509_common_name": [OPERATOR.encode()], "peer_dns": [OPERATOR.encode()]})


def test_a_name_cannot_write_lines_of_its_own_into_the_log() -> None:
    assert ROLES.admit("Agent/Info", client(VIEWER, name="eve\nERROR")) == "viewer eve?ERROR"
