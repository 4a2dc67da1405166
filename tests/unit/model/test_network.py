import pytest

from netagent.model.address import parse_address, parse_prefix
from netagent.model.network import PREDEFINED, Network, Scope
from tests.support.world import LOCALNET, a_local_network, a_subnet, an_overlay


@pytest.mark.parametrize(
    ("subnet", "length", "gateway", "reserved"),
    [
        ("192.168.0.0/16", 24, None, "192.168.0.0/24"),
        ("192.168.0.0/16", 24, "192.168.7.9", "192.168.7.0/24"),
        ("10.0.0.0/24", 28, "10.0.0.254", "10.0.0.240/28"),
        ("fd00::/64", 80, None, "fd00::/80"),
    ],
)
def test_the_block_with_the_gateway_is_reserved(subnet: str, length: int, gateway: str | None, reserved: str) -> None:
    assert a_subnet(subnet, block_length=length, gateway=gateway).reserved_block == parse_prefix(reserved)


def test_a_subnet_that_is_not_cut_reserves_nothing() -> None:
    assert a_subnet("172.16.0.0/24").reserved_block is None


def test_hosts_hold_blocks_of_one_length_all_but_the_reserved_one() -> None:
    cut = a_subnet("192.168.0.0/16", block_length=24, gateway="192.168.7.9")
    blocks = ("192.168.0.0/24", "192.168.7.0/24", "192.168.8.0/24")
    assert [text for text in blocks if cut.has_block(parse_prefix(text))] == [
        "192.168.0.0/24",
        "192.168.8.0/24",
    ]
    assert not cut.has_block(parse_prefix("192.168.8.0/25"))
    assert not cut.has_block(cut.prefix)
    whole = a_subnet("172.16.0.0/24")
    assert whole.has_block(whole.prefix)


def test_addresses_and_blocks_are_found_in_their_subnet() -> None:
    network = a_local_network("10.0.0.0/24", "fd00::/64")
    four, six = network.subnets
    assert network.subnet_of(parse_address("10.0.0.9")) is four
    assert network.subnet_of(parse_address("fd00::9")) is six
    assert network.subnet_of(parse_address("10.0.1.9")) is None
    assert network.subnet_around(parse_prefix("10.0.0.128/25")) is four
    assert network.subnet_around(parse_prefix("10.0.0.0/23")) is None
    assert network.subnet_around(parse_prefix("::/0")) is None


@pytest.mark.parametrize("name", sorted(PREDEFINED))
def test_predefined_networks_are_the_hosts_own(name: str) -> None:
    local = Network(id=LOCALNET, name=name, driver="bridge", scope=Scope.LOCAL)
    shared = Network(id=LOCALNET, name=name, driver="vxlan", scope=Scope.GLOBAL)
    assert local.is_predefined
    assert not shared.is_predefined
    assert not an_overlay().is_predefined


def test_a_network_without_subnets_gives_no_interface() -> None:
    assert not Network(id=LOCALNET, name="none", driver="null", scope=Scope.LOCAL).has_endpoints
    assert an_overlay().has_endpoints
