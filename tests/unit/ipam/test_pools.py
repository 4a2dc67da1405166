import pytest

from netagent.errors import Conflict, Exhausted, InvalidRequest
from netagent.ipam.pools import choose_subnet, default_block_length, parse_subnet, refuse_overlap
from netagent.model.address import parse_prefix
from netagent.model.network import Scope
from tests.support.world import a_local_network, a_subnet, an_overlay, facts


@pytest.mark.parametrize(
    ("prefix", "length"),
    [
        ("10.0.0.0/8", 24),
        ("192.168.0.0/16", 24),
        ("10.0.0.0/20", 24),
        ("10.0.0.0/21", 25),
        ("10.0.0.0/24", 28),
        ("10.0.0.0/28", 30),
        ("fd00::/64", 80),
        ("fd00::/112", 126),
    ],
)
def test_default_block_lengths(prefix: str, length: int) -> None:
    assert default_block_length(parse_prefix(prefix)) == length


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.0/8", "is not for containers"),
        ("0.0.0.0/0", "is not for containers"),
        ("224.0.0.0/24", "is not for containers"),
        ("fe80::/64", "is not for containers"),
        ("10.0.0.0/31", "too small"),
        ("192.168.1.5/24", "it should be 192.168.1.0/24"),
    ],
)
def test_subnets_that_cannot_work_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse_subnet(text, scope=Scope.GLOBAL)


@pytest.mark.parametrize("gateway", ["10.1.0.1", "10.0.0.0", "10.0.0.255", "fd00::1", "x"])
def test_gateways_outside_the_subnet_are_refused(gateway: str) -> None:
    with pytest.raises(InvalidRequest, match="gateway"):
        parse_subnet("10.0.0.0/24", scope=Scope.LOCAL, gateway=gateway)


def test_a_block_must_be_smaller_than_the_subnet() -> None:
    with pytest.raises(InvalidRequest, match="must be smaller"):
        parse_subnet("10.0.0.0/24", scope=Scope.GLOBAL, block_length=24)
    with pytest.raises(InvalidRequest, match="lives on one host"):
        parse_subnet("10.0.0.0/24", scope=Scope.LOCAL, block_length=28)


def test_a_subnet_of_another_network_is_refused_by_name() -> None:
    with pytest.raises(Conflict, match=r"overlaps with 192\.168\.0\.0/16 of network staticnet"):
        refuse_overlap([a_subnet("192.168.7.0/24")], [an_overlay()], facts())


def test_a_subnet_that_the_host_routes_or_has_is_refused_by_device() -> None:
    with pytest.raises(Conflict, match=r"the host's route 10\.0\.0\.0/8 dev eth0"):
        refuse_overlap([a_subnet("10.1.0.0/16")], [], facts("10.0.0.0/8"))
    with pytest.raises(Conflict, match=r"the host's address 10\.1\.2\.3 on eth1"):
        refuse_overlap([a_subnet("10.1.0.0/16")], [], facts(interfaces={"eth1": (1500, ("10.1.2.3",))}))


def test_the_default_route_overlaps_nothing() -> None:
    refuse_overlap([a_subnet("10.1.0.0/16")], [], facts("0.0.0.0/0"))


def test_automatic_subnets_skip_what_is_taken() -> None:
    chosen = choose_subnet(Scope.LOCAL, [a_local_network("172.16.0.0/24")], facts("172.16.1.0/24"))
    assert str(chosen.prefix) == "172.16.2.0/24"
    assert str(choose_subnet(Scope.GLOBAL, [], facts("10.128.0.0/24")).prefix) == "10.129.0.0/16"


def test_an_exhausted_pool_says_so_in_dockers_words() -> None:
    with pytest.raises(Exhausted, match="all predefined address pools have been fully subnetted"):
        choose_subnet(Scope.LOCAL, [], facts("172.16.0.0/12", "192.168.0.0/16"))


def test_a_host_that_routes_the_first_pool_gets_a_subnet_of_the_second() -> None:
    assert str(choose_subnet(Scope.LOCAL, [], facts("172.16.0.0/12")).prefix) == "192.168.0.0/24"
