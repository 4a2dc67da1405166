import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.firewall import publish
from netagent.model.port import PortMapping
from netagent.model.port_grammar import parse_publish, parse_published
from tests.support.world import an_endpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4000:80", ["0.0.0.0:4000->80/tcp"]),
        ("80", ["0.0.0.0:0->80/tcp"]),
        ("53:53/udp", ["0.0.0.0:53->53/udp"]),
        ("127.0.0.1:8080:80", ["127.0.0.1:8080->80/tcp"]),
        ("127.0.0.1::80", ["127.0.0.1:0->80/tcp"]),
        ("[fd00::1]:8080:80/sctp", ["fd00::1:8080->80/sctp"]),
        ("8000-8002:80-82", ["0.0.0.0:8000-8002->80-82/tcp"]),
        ("0.0.0.0:1:2", ["0.0.0.0:1->2/tcp"]),
        ("0:80", ["0.0.0.0:0->80/tcp"]),
        ("80-81", ["0.0.0.0:0->80/tcp", "0.0.0.0:0->81/tcp"]),
        ("8000-8010:80", ["0.0.0.0:8000-8010->80/tcp"]),
        ("127.0.0.1:8000-8010:80/UDP", ["127.0.0.1:8000-8010->80/udp"]),
        ("fd00::1:8080:80", ["fd00::1:8080->80/tcp"]),
        ("5432:5432@10.0.0.0/8", ["0.0.0.0:5432->5432/tcp@10.0.0.0/8"]),
        ("80/udp@192.0.2.1,2001:db8::/32", ["0.0.0.0:0->80/udp@192.0.2.1/32,2001:db8::/32"]),
        ("1:1@10.0.0.0/8,10.1.0.0/16,11.0.0.0/8", ["0.0.0.0:1->1/tcp@10.0.0.0/7"]),
    ],
)
def test_the_grammar_of_publish(text: str, expected: list[str]) -> None:
    assert [str(mapping) for mapping in parse_publish(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no port specified"),
        ("4000:", "no port specified"),
        ("a:80", "invalid hostPort: a"),
        ("80:b", "invalid containerPort: b"),
        ("65536:80", "invalid hostPort: 65536"),
        ("80:0", "invalid containerPort: 0"),
        ("80:-1", "invalid containerPort: -1"),
        ("80:80/icmp", "invalid proto: icmp"),
        ("80:80/", "invalid proto"),
        ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
        ("[fd00::1:80", "invalid IP address"),
        ("8000-8010:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8010"),
        ("8010-8000:80-90", "invalid hostPort: 8010-8000"),
        ("٨٠:80", "invalid hostPort"),
        ("80 :80", "invalid hostPort"),
        ("80:80@", "no source range after @ or a comma"),
        ("80:80@10.0.0.0/8,", "no source range after @ or a comma"),
        ("80:80@10.0.0.1/8", "invalid source range 10.0.0.1/8: it should be 10.0.0.0/8"),
        ("80:80@example.org", "invalid source range: example.org"),
        ("80:80@10.0.0.0/33", "invalid source range 10.0.0.0/33"),
        ("80:80@::ffff:10.0.0.1", "invalid source range: ::ffff:10.0.0.1"),
        ("80@10.0.0.0/8/tcp", "invalid source range"),
        ("80:80@" + ",".join(["10.0.0.1"] * 257), "a port has 257 source ranges"),
        ("0-10:80", "invalid hostPort: 0-10"),
        ("[1.2.3.4]:80:80", "invalid IP address"),
    ],
)
def test_bad_publish_texts_are_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match="^" + message.replace("[", r"\[").replace(".", r"\.")):
        parse_publish(text)


@given(st.text(max_size=40))
def test_any_text_is_either_mappings_or_a_refusal(text: str) -> None:
    try:
        mappings = parse_publish(text)
    except InvalidRequest:
        return
    assert mappings
    assert all(0 <= m.host_port <= 65535 and 1 <= m.container_port <= 65535 for m in mappings)


_PIECES = st.sampled_from(
    (
        *":@/-,[] ",
        "::",
        "0",
        "1",
        "80",
        "8000-8010",
        "65535",
        "65536",
        "9" * 5000,
        "tcp",
        "udp",
        "10.0.0.0/8",
        "127.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::/8",
        "\u0664",
        " ",
        "\0",
        "\n",
        "' ; drop",
        "{ }",
    )
)


@settings(deadline=None)
@given(st.lists(_PIECES, max_size=12).map("".join))
def test_hostile_texts_are_refused_or_become_elements_of_digits_and_addresses_only(text: str) -> None:
    """What is understood is written into firewall transactions as text."""
    refusal: str | None = None
    mappings: tuple[PortMapping, ...] = ()
    try:
        mappings = parse_published((text,))
    except InvalidRequest as error:
        refusal = str(error)
    if refusal is not None:
        assert refusal.isprintable()
        return
    endpoint = replace(an_endpoint("10.0.0.2", "fd00::2"), ports=mappings)
    for elements in publish.elements(endpoint).values():
        assert all(re.fullmatch(r"[0-9a-f.:/ -]*((tcp|udp|sctp)[0-9a-f.:/ -]*)?", element) for element in elements)


_RANGES = st.builds(
    lambda first, count, shift: PortMapping(protocol="tcp", container_port=first, host_port=first + shift, count=count),
    st.integers(1, 40),
    st.integers(1, 20),
    st.sampled_from([0, 0, 7]),
)


@given(_RANGES, _RANGES)
def test_what_is_taken_out_of_a_range_leaves_the_rest(mapping: PortMapping, pattern: PortMapping) -> None:
    pairs = set(zip(mapping.host_ports, mapping.container_ports, strict=True))
    gone = pairs & set(zip(pattern.host_ports, pattern.container_ports, strict=True))
    left = mapping.without(mapping.matching(pattern))
    assert {pair for m in left for pair in zip(m.host_ports, m.container_ports, strict=True)} == pairs - gone


@given(_RANGES, _RANGES)
def test_ranges_collide_if_they_share_a_host_port(one: PortMapping, other: PortMapping) -> None:
    assert one.collides(other) is other.collides(one) is bool(set(one.host_ports) & set(other.host_ports))


def test_neighbours_are_joined_into_one_mapping() -> None:
    texts = ("1:1", "2:2", "3:3", "5:5", "6:7", "7:8", "8:9/udp", "9:10/udp@10.0.0.0/8", "10:11/udp@10.0.0.0/8")
    assert [str(m) for m in parse_published(texts)] == [
        "0.0.0.0:1-3->1-3/tcp",
        "0.0.0.0:5->5/tcp",
        "0.0.0.0:6-7->7-8/tcp",
        "0.0.0.0:8->9/udp",
        "0.0.0.0:9-10->10-11/udp@10.0.0.0/8",
    ]


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("8005", ["0.0.0.0:8000-8004->8000-8004/tcp", "0.0.0.0:8006-8009->8006-8009/tcp"]),
        ("8000-8009", []),
        ("8000-8003:8000-8003", ["0.0.0.0:8004-8009->8004-8009/tcp"]),
        ("8001:8002", ["0.0.0.0:8000-8009->8000-8009/tcp"]),
        ("8000-8009:8002", ["0.0.0.0:8000-8001->8000-8001/tcp", "0.0.0.0:8003-8009->8003-8009/tcp"]),
        ("8005/udp", ["0.0.0.0:8000-8009->8000-8009/tcp"]),
        ("127.0.0.1:8005:8005", ["0.0.0.0:8000-8009->8000-8009/tcp"]),
    ],
)
def test_a_part_of_a_range_is_meant_by_what_a_text_says_of_it(pattern: str, left: list[str]) -> None:
    mappings = parse_publish("8000-8009:8000-8009")
    for asked in parse_publish(pattern):
        mappings = tuple(rest for m in mappings for rest in m.without(m.matching(asked)))
    assert [str(m) for m in mappings] == left


def test_one_host_port_for_two_container_ports_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="published twice"):
        parse_published(("4000:80", "127.0.0.1:4000:81"))


def test_the_same_mapping_twice_is_one() -> None:
    assert len(parse_published(("4000:80", "4000:80/tcp"))) == 1


def test_every_address_collides_with_each_single_one() -> None:
    (everywhere,) = parse_publish("4000:80")
    (one,) = parse_publish("10.0.0.1:4000:80")
    (other,) = parse_publish("10.0.0.2:4000:80")
    (udp,) = parse_publish("4000:80/udp")
    assert everywhere.collides(one)
    assert one.collides(everywhere)
    assert not one.collides(other)
    assert not everywhere.collides(udp)


def test_mappings_are_values() -> None:
    assert PortMapping(protocol="tcp", container_port=80, host_port=1) == parse_publish("1:80")[0]
