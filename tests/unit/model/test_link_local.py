import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.model.link_local import ADDRESSES_LIMIT, parse_link_locals


def test_addresses_are_kept_once_in_their_order() -> None:
    found = parse_link_locals(("fe80::8", "169.254.8.8", "FE80:0::8"))
    assert [str(address) for address in found] == ["fe80::8", "169.254.8.8"]


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "169.254.0.1", "169.254.255.1", "fe80::", "fe80:0:0:1::1", "fd00::1", "fe80::1%eth0", "", "x"]
)
def test_what_is_not_link_local_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid link-local IP address: "):
        parse_link_locals((text,))


def test_there_is_an_end_to_them() -> None:
    with pytest.raises(InvalidRequest, match="17 link-local addresses"):
        parse_link_locals(f"fe80::{number:x}" for number in range(1, ADDRESSES_LIMIT + 2))


@given(st.ip_addresses())
def test_whatever_is_taken_is_link_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        assert parse_link_locals((str(address),))[0].is_link_local
    except InvalidRequest:
        assert not address.is_link_local or address.version == 6 or address.packed[2] in (0, 255)
