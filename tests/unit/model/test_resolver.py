import pytest
from hypothesis import given
from hypothesis import strategies as st

from netagent.errors import InvalidRequest
from netagent.model.resolver import (
    ExtraHost,
    Link,
    parse_extra_host,
    parse_hostname,
    parse_link,
    parse_nameserver,
    parse_resolver_option,
    parse_search,
)


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("db:10.0.0.1", "db", "10.0.0.1"),
        ("db=10.0.0.1", "db", "10.0.0.1"),
        ("db:::1", "db", "::1"),
        ("db=[fd00::1]", "db", "fd00::1"),
        ("db:[fd00::1]", "db", "fd00::1"),
        ("host.docker.internal:host-gateway", "host.docker.internal", "host-gateway"),
    ],
)
def test_extra_hosts_are_read_as_docker_reads_them(text: str, name: str, address: str) -> None:
    assert parse_extra_host(text) == ExtraHost(name=name, address=address)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("db", 'bad format for add-host: "db"'),
        (":10.0.0.1", 'bad format for add-host: ":10.0.0.1"'),
        ("db:", 'bad format for add-host: "db:"'),
        ("d b:10.0.0.1", "is not a host name"),
        ("db:10.0.0", 'invalid IP address in add-host: "10.0.0"'),
        ("db:10.0.0.1\n10.0.0.2 x", "invalid IP address in add-host"),
    ],
)
def test_what_would_break_the_hosts_file_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_extra_host(text)


@pytest.mark.parametrize(
    ("text", "target", "alias"),
    [("web", "web", "web"), ("web:www", "web", "www"), ("/web:/app/www", "web", "www"), ("web:*.app", "web", "*.app")],
)
def test_links_are_read_as_docker_reads_them(text: str, target: str, alias: str) -> None:
    assert parse_link(text) == Link(target=target, alias=alias)


@pytest.mark.parametrize("text", ["", ":www", "web:", "web:a:b"])
def test_a_link_needs_a_container_and_a_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="bad format for links"):
        parse_link(text)


def test_nameservers_are_addresses() -> None:
    assert parse_nameserver("192.0.2.53") == "192.0.2.53"
    assert parse_nameserver("fe80::1%eth0") == "fe80::1%eth0"
    with pytest.raises(InvalidRequest, match="IP address is not correctly formatted"):
        parse_nameserver("dns.example.org")


@pytest.mark.parametrize("parse", [parse_search, parse_resolver_option, parse_nameserver])
@given(text=st.text())
def test_no_setting_can_add_a_line_to_resolv_conf(parse: object, text: str) -> None:
    assert callable(parse)
    try:
        read = parse(text)
    except InvalidRequest:
        return
    assert len(read.split()) == 1


def test_a_dot_means_no_search_list() -> None:
    assert parse_search(".") == "."
    assert parse_search("corp.example") == "corp.example"


@pytest.mark.parametrize("text", ["web", "Web-1.example.org", "a_b", "h" * 64])
def test_a_host_may_be_called_so(text: str) -> None:
    assert parse_hostname(text) == text


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "-a", "a..b", "h" * 65, "ä", "a/b", "a\0b"])
def test_a_host_may_not_be_called_so(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_hostname(text)
    assert refused.value.message == f"invalid hostname format: {text!r}"
