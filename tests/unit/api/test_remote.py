"""Where the TCP door is, as the configuration and the command line write it."""

import socket
from pathlib import Path

import pytest

from netagent.api.remote import Listen, check_free, parse_listen
from netagent.cli.remote import parse_remote
from netagent.errors import EnvironmentProblem, InvalidRequest


@pytest.mark.parametrize(
    ("text", "place", "written"),
    [
        (":7000", ("::", 7000), "[::]:7000"),
        ("10.0.0.21", ("10.0.0.21", 7947), "10.0.0.21:7947"),
        ("h1.example:1", ("h1.example", 1), "h1.example:1"),
        ("[fd00::1]", ("fd00::1", 7947), "[fd00::1]:7947"),
    ],
)
def test_an_address_to_listen_at(text: str, place: tuple[str, int], written: str) -> None:
    listen = parse_listen(text)
    assert (listen.host, listen.port) == place
    assert str(listen) == written


@pytest.mark.parametrize("text", ["", ":0", ":65536", "10.0.0.21:", "a b:1", "::1", "tcp://h1"])
def test_what_is_no_address_to_listen_at(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid address to listen at"):
        parse_listen(text)


def test_a_port_that_somebody_has_is_named() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match=rf"cannot listen at 127\.0\.0\.1:{port}: Address already in use"):
            check_free(Listen(host="127.0.0.1", port=port))


@pytest.mark.parametrize(
    ("url", "written"),
    [("tcp://h2", "h2:7947"), ("tcp://[fd00::2]:1/", "[fd00::2]:1"), ("tcp://10.0.0.2:9", "10.0.0.2:9")],
)
def test_an_agent_on_another_machine(url: str, written: str) -> None:
    assert str(parse_remote(url, ca=Path("ca"), cert=Path("cert"), key=Path("key"))) == written


@pytest.mark.parametrize("url", ["h2", "unix:///run/x", "tcp://", "tcp://h2:0", "http://h2", "tcp://-x:99999"])
def test_what_is_no_agent(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"write tcp://HOST\[:7947\]"):
        parse_remote(url, ca=Path("ca"), cert=Path("cert"), key=Path("key"))
