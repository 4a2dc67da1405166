import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.model.port import PortMapping, parse_publish, parse_published


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4000:80", ["0.0.0.0:4000->80/tcp"]),
        ("80", ["0.0.0.0:0->80/tcp"]),
        ("53:53/udp", ["0.0.0.0:53->53/udp"]),
        ("127.0.0.1:8080:80", ["127.0.0.1:8080->80/tcp"]),
        ("127.0.0.1::80", ["127.0.0.1:0->80/tcp"]),
        ("[fd00::1]:8080:80/sctp", ["fd00::1:8080->80/sctp"]),
        ("8000-8002:80-82", ["0.0.0.0:8000->80/tcp", "0.0.0.0:8001->81/tcp", "0.0.0.0:8002->82/tcp"]),
        ("0.0.0.0:1:2", ["0.0.0.0:1->2/tcp"]),
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
