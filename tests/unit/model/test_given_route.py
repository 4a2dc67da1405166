"""Routes that whoever manages a container's addresses gives."""

import pytest

from netagent.errors import InvalidRequest
from netagent.model.address import parse_address, parse_prefix
from netagent.model.given_route import ROUTES_LIMIT, lead_out, parse_given_routes
from netagent.model.ids import NetworkId
from netagent.model.network import Network, Scope, Subnet

NETWORK = Network(
    id=NetworkId("a" * 64),
    name="dual",
    driver="bridge",
    scope=Scope.LOCAL,
    subnets=(
        Subnet(prefix=parse_prefix("10.0.0.0/16"), gateway=parse_address("10.0.0.1"), block_length=24),
        Subnet(prefix=parse_prefix("fd00::/64"), gateway=parse_address("fd00::1"), block_length=80),
    ),
)


def texts(*pairs: tuple[str, str]) -> list[str]:
    return [f"{route.destination} via {route.gateway}" for route in parse_given_routes(pairs, NETWORK)]


def test_a_route_without_a_gateway_goes_by_the_networks_own() -> None:
    assert texts(("0.0.0.0/0", ""), ("::/0", "")) == ["0.0.0.0/0 via 10.0.0.1", "::/0 via fd00::1"]


def test_the_first_of_two_to_one_destination_wins_and_bits_behind_the_prefix_are_dropped() -> None:
    assert texts(("172.16.5.0/12", "10.0.0.2"), ("172.16.0.0/12", "10.0.0.3")) == ["172.16.0.0/12 via 10.0.0.2"]


@pytest.mark.parametrize("own", ["10.0.0.0/16", "fd00::/64", "fd00::/65", "fd00::8000:0:0:0/65"])
def test_what_the_address_brings_by_itself_is_left_out(own: str) -> None:
    assert texts((own, "")) == []


@pytest.mark.parametrize(
    ("destination", "gateway"),
    [
        ("nonsense", ""),
        ("10.0.0.0/33", ""),
        ("0.0.0.0/0", "10.1.0.1"),
        ("0.0.0.0/0", "fd00::1"),
        ("::/0", "fd01::1"),
        ("::/0", "10.0.0.1"),
        ("0.0.0.0/0", "x"),
    ],
)
def test_a_route_that_cannot_be_is_refused(destination: str, gateway: str) -> None:
    with pytest.raises(InvalidRequest):
        texts((destination, gateway))


def test_a_gateway_may_be_known_on_the_link_alone() -> None:
    assert texts(("::/0", "fe80::1")) == ["::/0 via fe80::1"]


def test_too_many_routes_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        texts(*((f"172.16.{number}.0/24", "") for number in range(ROUTES_LIMIT + 1)))


def test_a_family_leads_out_by_a_default_route_or_if_nothing_is_given_for_it() -> None:
    some = parse_given_routes((("172.16.0.0/12", ""), ("::/0", "")), NETWORK)
    assert (lead_out(some, 4), lead_out(some, 6), lead_out((), 4)) == (False, True, True)
