"""Reserved host ports: nobody else can bind them, and nothing that reaches them is answered or kept."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from netagent.errors import Conflict, EnvironmentProblem
from netagent.kernel import netns
from netagent.kernel.reserve import SocketReservations
from netagent.model.port import PortMapping, PortSlot
from tests.support.netns import Namespace, eventually

pytestmark = pytest.mark.kernel


@pytest.fixture
def reservations(host: Namespace) -> Iterator[SocketReservations]:
    held = SocketReservations(namespace=host.path)
    yield held
    held.close()


def port(number: int = 4000, protocol: str = "tcp", where: str | None = None) -> PortSlot:
    """Return a host port."""
    return PortSlot(protocol, number, ip_address(where) if where else None)


@contextmanager
def opened(host: Namespace, protocol: str = "tcp", family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """Yield a socket in ``host``."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    home, namespace = netns.open_own_namespace(), netns.open_namespace(host.path)
    made = netns.call_inside(namespace, home, lambda: socket.socket(family, kind))
    namespace.close()
    home.close()
    with made:
        yield made


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")])
def test_nobody_else_can_bind_a_reserved_port(
    host: Namespace, reservations: SocketReservations, protocol: str, family: int, address: str
) -> None:
    reservations.reserve(port(protocol=protocol))
    with opened(host, protocol, family) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((address, 4000))
    reservations.release(port(protocol=protocol))
    with opened(host, protocol, family) as other:
        other.bind((address, 4000))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("where", [None, "127.0.0.1"])
def test_a_port_of_a_process_is_refused_with_docker_like_words(
    host: Namespace, reservations: SocketReservations, protocol: str, where: str | None
) -> None:
    with opened(host, protocol) as listener:
        listener.bind(("0.0.0.0", 4000))
        if protocol == "tcp":
            listener.listen()
        expected = f"failed to bind host port {where or '0.0.0.0'}:4000/{protocol}: address already in use"
        with pytest.raises(Conflict, match=expected) as caught:
            reservations.reserve(port(protocol=protocol, where=where))
        assert "sport = :4000" in caught.value.hint
    reservations.reserve(port(protocol=protocol, where=where))


def test_a_refused_port_holds_nothing_back(host: Namespace, reservations: SocketReservations) -> None:
    """IPv4 is free, IPv6 is taken: the IPv4 socket must not stay."""
    with opened(host, family=socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("::", 4000))
        listener.listen()
        with pytest.raises(Conflict, match=r"\[::\]:4000/tcp"):
            reservations.reserve(port())
    with opened(host) as other:
        other.bind(("0.0.0.0", 4000))


def test_connecting_to_a_reserved_port_is_refused_not_accepted(
    host: Namespace, reservations: SocketReservations
) -> None:
    reservations.reserve(port())
    with opened(host) as client:
        client.settimeout(60)
        with pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", 4000))


def test_datagrams_to_a_reserved_port_do_not_pile_up(host: Namespace, reservations: SocketReservations) -> None:
    reservations.reserve(port(protocol="udp"))
    with opened(host, "udp") as client:
        for _ in range(50):
            client.sendto(b"x" * 1000, ("127.0.0.1", 4000))
    queued = [line.split()[1] for line in host.run("ss", "-Hlun", "sport = :4000").splitlines()]
    assert queued == ["0", "0"]


def test_closed_connections_that_linger_do_not_hold_a_port(host: Namespace, reservations: SocketReservations) -> None:
    with opened(host) as listener, opened(host) as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", 4000))
        listener.listen()
        client.connect(("127.0.0.1", 4000))
        accepted, _ = listener.accept()
        accepted.close()
        assert client.recv(1) == b""
    eventually(lambda: "TIME-WAIT" in host.run("ss", "-Htan", "sport = :4000"))
    reservations.reserve(port())
    with opened(host) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("0.0.0.0", 4000))


def test_reserving_and_releasing_twice_is_once(host: Namespace, reservations: SocketReservations) -> None:
    reservations.reserve(port())
    reservations.reserve(port())
    reservations.release(port())
    reservations.release(port())
    with opened(host) as other:
        other.bind(("0.0.0.0", 4000))


def test_an_address_that_no_interface_has_is_named(reservations: SocketReservations) -> None:
    with pytest.raises(EnvironmentProblem, match=r"192\.0\.2\.7:4000/tcp"):
        reservations.reserve(port(where="192.0.2.7"))


def test_a_machine_without_ipv6_reserves_ipv4(host: Namespace, reservations: SocketReservations) -> None:
    host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.lo.disable_ipv6=1")
    reservations.reserve(port())
    with opened(host) as other, pytest.raises(OSError, match="in use"):
        other.bind(("0.0.0.0", 4000))


def test_sctp_is_no_error_where_the_kernel_has_none(reservations: SocketReservations) -> None:
    reservations.reserve(port(protocol="sctp"))
    reservations.check_free(ports(protocol="sctp"))
    reservations.release(port(protocol="sctp"))


def ports(protocol: str = "tcp", where: str | None = None) -> PortMapping:
    """Return a mapping of a thousand host ports, 4000 among them."""
    return PortMapping(
        protocol=protocol,
        container_port=3500,
        host_port=3500,
        count=1000,
        host_address=ip_address(where) if where else None,
    )


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("listening", "wanted", "collides"),
    [
        ("0.0.0.0", None, True),
        ("127.0.0.1", None, True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("::1", None, True),
        ("::1", "127.0.0.1", False),
        ("::", "127.0.0.1", True),
        ("::", "::1", True),
        ("0.0.0.0", "::1", False),
    ],
)
def test_one_look_tells_whether_a_process_has_a_port_of_a_range(
    host: Namespace, reservations: SocketReservations, protocol: str, listening: str, wanted: str | None, collides: bool
) -> None:
    family = socket.AF_INET6 if ":" in listening else socket.AF_INET
    for number, is_inside in ((3499, False), (4000, True), (4500, False)):
        with opened(host, protocol, family) as process:
            process.bind((listening, number))
            if protocol == "tcp":
                process.listen()
            if is_inside and collides:
                with pytest.raises(Conflict, match=f":4000/{protocol}: address already in use"):
                    reservations.check_free(ports(protocol, wanted))
            else:
                reservations.check_free(ports(protocol, wanted))


def test_a_socket_that_is_bound_but_does_not_listen_has_its_port_too(
    host: Namespace, reservations: SocketReservations
) -> None:
    with opened(host) as other:
        other.bind(("0.0.0.0", 4000))
        with pytest.raises(Conflict, match=":4000/tcp"):
            reservations.check_free(ports())


def test_automatic_ports_are_those_of_the_kernel_without_the_reserved_ones(
    host: Namespace, reservations: SocketReservations
) -> None:
    host.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40100")
    host.run("sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=40001,40010-40012")
    first, last, reserved = reservations.automatic_ports()
    assert (first, last, reserved) == (40000, 40100, {40001, 40010, 40011, 40012})
