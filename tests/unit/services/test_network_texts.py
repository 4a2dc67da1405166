"""``--network`` in its short and in its long form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.services.network_texts import NetworkText, split_networks
from netagent.services.requests import Connection


def test_the_long_form_gives_every_network_its_own_options() -> None:
    texts = split_networks(
        Connection(
            networks=("name=app,ip=10.0.0.5,ip6=fd00::5,alias=db,alias=store,mac-address=02:00:00:00:00:01", "other"),
        )
    )
    assert texts == (
        NetworkText(
            name="app",
            addresses=("10.0.0.5", "fd00::5"),
            aliases=("db", "store"),
            mac="02:00:00:00:00:01",
        ),
        NetworkText(name="other"),
    )


def test_options_beside_networks_mean_the_first() -> None:
    connection = Connection(
        networks=("app", "name=other,gw-priority=-3"), addresses=("10.0.0.5",), aliases=("a",), gw_priority=7
    )
    first, second = split_networks(connection)
    assert (first.addresses, first.aliases, first.gw_priority) == (("10.0.0.5",), ("a",), 7)
    assert (second.addresses, second.aliases, second.gw_priority) == ((), ("a",), -3)
    assert split_networks(Connection())[0] == NetworkText(name="bridge")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name=app,colour=red", "invalid field key colour"),
        ("ip=10.0.0.5", "network name/id is not specified"),
        ("name=app,ip", "invalid field ip of --network"),
        ("name=app,=x", "invalid field =x of --network"),
        ("name=app,gw-priority=high", "invalid gw-priority (high)"),
        ("name=app,gw-priority=99999999999", "invalid gw-priority (99999999999): value out of range"),
        ("name=app,gw-priority=" + "9" * 5000, "invalid gw-priority ("),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        split_networks(Connection(networks=(text,)))
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    "connection",
    [
        Connection(networks=("name=app,ip=10.0.0.5",), addresses=("10.0.0.6",)),
        Connection(networks=("name=app,mac-address=02:00:00:00:00:01",), mac="02:00:00:00:00:02"),
        Connection(networks=("name=app,alias=db",), aliases=("db2",)),
        Connection(networks=("name=app,gw-priority=1",), gw_priority=2),
    ],
)
def test_an_option_given_twice_is_refused_in_dockers_words(connection: Connection) -> None:
    with pytest.raises(InvalidRequest, match="conflicting options: cannot specify both --"):
        split_networks(connection)


@given(st.text(max_size=60))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        (parsed,) = split_networks(Connection(networks=(text,)))
    except InvalidRequest:
        return
    assert parsed.name in text
