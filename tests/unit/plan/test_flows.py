"""Which connections are forgotten, and which are left alone, when host ports change."""

import pytest

from netagent.firewall import publish, spoof
from netagent.firewall.ruleset import merge
from netagent.plan.desired import Ruleset
from netagent.plan.flows import flows
from tests.support.world import an_endpoint


def rules(*ports: str, address: str = "10.0.0.2") -> Ruleset:
    endpoint = an_endpoint(address, publish=ports)
    return Ruleset(elements=merge((publish.elements(endpoint), spoof.elements("nae1", endpoint))))


def forgotten(before: Ruleset, after: Ruleset, *, prune: bool = True) -> list[str]:
    return [str(operation).removeprefix("conntrack flush ") for operation in flows(after, before, prune)]


NOTHING = Ruleset()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((), ("8000-8999:8000-8999",), ["ipv4 *:8000-8999/tcp not to 10.0.0.2:8000"]),
        ((), ("8000-8999:9000-9999",), ["ipv4 *:8000-8999/tcp not to 10.0.0.2:9000"]),
        ((), ("1:1", "2:3", "3:4/udp"), None),
        (("8000-8999:9000-9999",), (), ["ipv4 *:8000-8999/tcp"]),
        (("4000:80",), ("4000:81",), ["ipv4 *:4000/tcp not to 10.0.0.2:81"]),
        (("127.0.0.1:1:1", "127.0.0.2:2:2"), (), ["ipv4 127.0.0.1:1/tcp", "ipv4 127.0.0.2:2/tcp"]),
        (("1:1", "2:2"), ("1:1", "2:2"), []),
    ],
)
def test_what_comes_and_goes_is_forgotten_and_neighbours_are_one(
    before: tuple[str, ...], after: tuple[str, ...], expected: list[str] | None
) -> None:
    found = forgotten(rules(*before), rules(*after))
    if expected is None:
        assert len(found) == 3
    else:
        assert found == expected


def test_of_a_range_that_shrinks_only_what_is_taken_out_is_forgotten_entirely() -> None:
    """What stays is confirmed: connections that lead where the port leads are kept."""
    assert forgotten(rules("8000-8999:8000-8999"), rules("8000-8399:8000-8399", "8600-8999:8600-8999")) == [
        "ipv4 *:8000-8399/tcp not to 10.0.0.2:8000",
        "ipv4 *:8600-8999/tcp not to 10.0.0.2:8600",
        "ipv4 *:8400-8599/tcp",
    ]


def test_a_container_that_goes_takes_all_that_it_answered_with_it() -> None:
    assert forgotten(rules("8000-8999:8000-8999"), NOTHING) == ["to 10.0.0.2"]


def test_nothing_is_forgotten_before_everything_was_heard() -> None:
    assert forgotten(rules("1:1"), NOTHING, prune=False) == []
