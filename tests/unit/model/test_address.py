import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.model.address import derive_mac, is_unassignable, parse_address, parse_mac, parse_prefix


@pytest.mark.parametrize("text", ["010.0.0.1", "1.2.3", "::ffff:1.2.3.4", "fe80::1%eth0", "", "1.2.3.4/8", "0x7f.1"])
def test_addresses_that_programs_read_differently_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid IP address"):
        parse_address(text)


def test_host_bits_in_a_subnet_are_refused_in_dockers_words() -> None:
    with pytest.raises(InvalidRequest, match=r"invalid subnet 192\.168\.1\.5/24: it should be 192\.168\.1\.0/24"):
        parse_prefix("192.168.1.5/24")


@pytest.mark.parametrize(
    "text", ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fd00::/129", "net/8", "10.0.0.0/08"]
)
def test_what_is_not_a_prefix_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_prefix(text)


@given(st.ip_addresses())
def test_every_address_is_read_back_as_it_is_written(address: object) -> None:
    if getattr(address, "ipv4_mapped", None) or getattr(address, "scope_id", None):
        return
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text", ["01:00:5e:00:00:01", "00:00:00:00:00:00", "02:42:ac", "zz:00:00:00:00:00", "02:42:ac:11:00:02\n"]
)
def test_macs_no_container_can_have_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_mac(text)


def test_a_mac_is_kept_in_one_spelling() -> None:
    assert parse_mac("02-42-AC-11-00-02") == "02:42:ac:11:00:02"


@given(st.text(), st.text())
def test_derived_macs_are_unicast_locally_administered_and_stable(one: str, other: str) -> None:
    mac = derive_mac(one, other)
    assert int(mac[:2], 16) & 3 == 2
    assert mac == derive_mac(one, other) == parse_mac(mac)


@pytest.mark.parametrize(
    ("address", "subnet", "expected"),
    [
        ("10.0.0.0", "10.0.0.0/24", True),
        ("10.0.0.255", "10.0.0.0/24", True),
        ("10.0.0.1", "10.0.0.0/24", False),
        ("192.168.1.0", "192.168.0.0/16", False),
        ("192.168.1.255", "192.168.0.0/16", False),
        ("10.0.0.0", "10.0.0.0/31", False),
        ("fd00::", "fd00::/64", True),
        ("fd00::ffff:ffff:ffff:ffff", "fd00::/64", False),
    ],
)
def test_network_broadcast_and_anycast_addresses_are_not_for_interfaces(
    address: str, subnet: str, expected: bool
) -> None:
    assert is_unassignable(parse_address(address), parse_prefix(subnet)) is expected
