from ipaddress import IPv4Address, IPv6Address

import pytest

from netagent.errors import InvalidRequest
from netagent.lab.layout import MOST_HOSTS, Layout, parse_layout


def test_default_lab_has_short_namespace_names() -> None:
    layout = Layout(name="default", hosts=2, etcd=1, mtu=1500)
    assert layout.namespaces == ("nalab-sw", "nalab-e1", "nalab-h1", "nalab-h2")


def test_other_labs_have_their_name_in_their_namespaces() -> None:
    layout = Layout(name="blue", hosts=1, etcd=1, mtu=1500)
    assert layout.namespaces == ("nalab-blue-sw", "nalab-blue-e1", "nalab-blue-h1")


def test_hosts_and_etcd_members_have_addresses_by_their_number() -> None:
    layout = Layout(name="default", hosts=2, etcd=3, mtu=1500)
    assert [seat.ipv4 for seat in layout.host_seats] == [IPv4Address("198.18.0.1"), IPv4Address("198.18.0.2")]
    assert [seat.ipv6 for seat in layout.host_seats] == [IPv6Address("fd00:198:18::1"), IPv6Address("fd00:198:18::2")]
    assert layout.store_url == "etcd://198.18.0.201:2379,198.18.0.202:2379,198.18.0.203:2379"


def test_largest_lab_has_no_address_twice() -> None:
    layout = parse_layout("big", hosts=MOST_HOSTS, etcd=3, mtu=1500)
    assert len({seat.ipv4 for seat in layout.seats}) == MOST_HOSTS + 3


@pytest.mark.parametrize(
    ("name", "hosts", "etcd", "mtu", "named"),
    [
        pytest.param("No", 3, 1, 1500, "'No'", id="capital-in-name"),
        pytest.param("a/b", 3, 1, 1500, "'a/b'", id="slash-in-name"),
        pytest.param("", 3, 1, 1500, "''", id="no-name"),
        pytest.param("a", 0, 1, 1500, "0 hosts", id="no-hosts"),
        pytest.param("a", 201, 1, 1500, "201 hosts", id="too-many-hosts"),
        pytest.param("a", 3, 2, 1500, "2 etcd", id="even-quorum"),
        pytest.param("a", 3, 1, 1279, "1279", id="mtu-below-ipv6"),
    ],
)
def test_impossible_sizes_are_refused_by_value(name: str, hosts: int, etcd: int, mtu: int, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        parse_layout(name, hosts=hosts, etcd=etcd, mtu=mtu)
