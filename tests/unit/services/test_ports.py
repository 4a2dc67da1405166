"""Host ports: who may have which, the choice of free ones, and when their sockets are bound."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from netagent.errors import Conflict, Exhausted, InvalidRequest
from netagent.kernel.fake import AUTOMATIC_PORTS, FakeReservations
from netagent.model.address import parse_address
from netagent.model.port import AutomaticPorts, PortMapping
from netagent.model.port_grammar import parse_published
from netagent.services.network_options import parse_host_bindings
from netagent.services.ports import PortService
from netagent.store.journal import Journal
from tests.support.agent import Agent, settled
from tests.support.world import a_local_network

NETWORK = a_local_network()
FIRST = AUTOMATIC_PORTS.first


@pytest.fixture
def sockets() -> FakeReservations:
    return FakeReservations(frozenset({("tcp", 4444), ("udp", 8050)}))


@pytest.fixture
def ports(sockets: FakeReservations, tmp_path: Path) -> PortService:
    return PortService(Journal(tmp_path), sockets)


def take(ports: PortService, *texts: str) -> list[str]:
    return [str(mapping) for mapping in ports.take(parse_published(texts), NETWORK)]


def test_a_host_range_for_one_port_gives_the_first_free_one(ports: PortService) -> None:
    assert take(ports, "4443-4446:80") == ["0.0.0.0:4443->80/tcp"]
    assert take(ports, "4443-4446:80") == ["0.0.0.0:4445->80/tcp"], "4444 is a process's"
    assert take(ports, "4443-4446:80") == ["0.0.0.0:4446->80/tcp"]
    with pytest.raises(Exhausted, match="all ports are allocated") as caught:
        take(ports, "4443-4446:80")
    assert "4443-4446/tcp" in caught.value.hint


def test_a_wish_does_not_take_a_port_that_the_same_request_names(ports: PortService) -> None:
    assert take(ports, "5000-5001:80", "5000:81") == ["0.0.0.0:5001->80/tcp", "0.0.0.0:5000->81/tcp"]


def test_automatic_ports_climb_for_each_protocol_and_address(ports: PortService) -> None:
    assert take(ports, "80", "81", "80/udp", "127.0.0.9::80/udp") == [
        f"0.0.0.0:{FIRST}->80/tcp",
        f"0.0.0.0:{FIRST + 1}->81/tcp",
        f"0.0.0.0:{FIRST}->80/udp",
        f"127.0.0.9:{FIRST + 1}->80/udp",
    ]


def test_automatic_ports_pass_over_reserved_ones_which_can_still_be_named(
    ports: PortService, sockets: FakeReservations
) -> None:
    sockets.automatic = AutomaticPorts(7000, 7003, frozenset({7000, 7002}))
    assert take(ports, "80", "81") == ["0.0.0.0:7001->80/tcp", "0.0.0.0:7003->81/tcp"]
    assert take(ports, "7002:80") == ["0.0.0.0:7002->80/tcp"]
    with pytest.raises(Exhausted):
        take(ports, "80")


@pytest.mark.parametrize("text", ["8010:80", "8019-8030:8019-8030", "127.0.0.1:8000:80", "7000-8000:7000-8000"])
def test_a_range_collides_port_by_port(ports: PortService, sockets: FakeReservations, text: str) -> None:
    take(ports, "8000-8019:8000-8019")
    held = set(sockets.held)
    with pytest.raises(Conflict, match=r"Bind for [0-9.]+:80[01][09] failed: port is already allocated"):
        take(ports, text)
    assert sockets.held == held
    take(ports, "8010:80/udp")


def test_a_part_of_a_range_is_let_go_alone(ports: PortService, sockets: FakeReservations) -> None:
    (mapping,) = ports.take(parse_published(("8000-8009:8000-8009",)), NETWORK)
    ports.release((mapping.part(5, 2),))
    assert sorted(slot.port for slot in sockets.held) == [8000, 8001, 8002, 8003, 8004, 8007, 8008, 8009]
    assert take(ports, "8005-8006:1-2") == ["0.0.0.0:8005-8006->1-2/tcp"]


@asynccontextmanager
async def running(ports: PortService) -> AsyncIterator[None]:
    task = asyncio.create_task(ports.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_of_a_long_range_the_sockets_are_bound_after_the_answer(
    ports: PortService, sockets: FakeReservations
) -> None:
    (mapping,) = ports.take(parse_published(("1000-1999:1000-1999",)), NETWORK)
    assert len(sockets.held) == 1
    ports.release((mapping.part(10, 20),))
    async with running(ports):
        while len(sockets.held) < 980:
            await settled()
    ports.release((mapping.part(0, 10), mapping.part(30, 970)))
    assert not sockets.held


def test_a_process_with_a_port_of_a_long_range_is_noticed_at_once(
    ports: PortService, sockets: FakeReservations
) -> None:
    with pytest.raises(Conflict, match=r"failed to bind host port 0\.0\.0\.0:8050/udp: address already in use"):
        take(ports, "8000-8999:8000-8999/udp")
    assert not sockets.held


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "expected"),
    [
        ("", "", [None]),
        ("0.0.0.0", "", [None]),
        ("127.0.0.1", "", ["127.0.0.1"]),
        ("", "fd00::9", ["fd00::9"]),
        ("127.0.0.1", "fd00::9", ["127.0.0.1", "fd00::9"]),
        ("0.0.0.0", "fd00::9", ["0.0.0.0", "fd00::9"]),
    ],
)
def test_a_network_says_where_ports_without_an_address_go_and_all_get_one_number(
    ports: PortService, ipv4: str, ipv6: str, expected: list[str | None]
) -> None:
    network = replace(NETWORK, host_bindings=parse_host_bindings(ipv4, ipv6))
    taken = ports.take(parse_published(("80", "127.0.0.3:81:81")), network)
    given = [None if m.host_address is None else str(m.host_address) for m in taken[:-1]]
    assert given == expected
    assert {m.host_port for m in taken[:-1]} == {FIRST}
    assert str(taken[-1].host_address) == "127.0.0.3"


def test_the_networks_addresses_go_before_the_hosts_own(sockets: FakeReservations, tmp_path: Path) -> None:
    ports = PortService(Journal(tmp_path), sockets, bindings=parse_host_bindings("127.0.0.8", ""))
    assert take(ports, "80:80") == ["127.0.0.8:80->80/tcp"]
    network = replace(NETWORK, host_bindings=(parse_address("127.0.0.7"),))
    assert [str(m) for m in ports.take(parse_published(("80:80",)), network)] == ["127.0.0.7:80->80/tcp"]


@pytest.mark.parametrize(("ipv4", "ipv6"), [("fd00::1", ""), ("", "10.0.0.1"), ("x", ""), ("", "fe80::1%eth0")])
def test_a_binding_of_the_other_family_or_none_is_refused(ipv4: str, ipv6: str) -> None:
    with pytest.raises(InvalidRequest, match=r"invalid host_binding_ipv[46]: "):
        parse_host_bindings(ipv4, ipv6)


def test_loopback6_is_refused_by_a_host_that_does_not_serve_it(ports: PortService) -> None:
    with pytest.raises(InvalidRequest, match=r"\[::1\]") as caught:
        take(ports, "[::1]:80:80")
    assert "loopback_proxy = true" in caught.value.hint


async def test_a_part_of_a_published_range_is_taken_back(agent: Agent) -> None:
    await agent.create_network()
    await agent.attach("web", "staticnet", publish=("8000-8009:8000-8009@10.0.0.0/8",))
    await agent.publishing.unpublish("web", ("8003-8004:8003-8004",))
    (endpoint,) = agent.journal.endpoints.values()
    assert [str(p) for p in endpoint.ports] == [
        "0.0.0.0:8000-8002->8000-8002/tcp@10.0.0.0/8",
        "0.0.0.0:8005-8009->8005-8009/tcp@10.0.0.0/8",
    ]
    assert {slot.port for slot in agent.reservations.held} == {*range(8000, 8003), *range(8005, 8010)}
    await agent.attach("api", "staticnet", publish=("8003:80",))


async def test_a_runtime_may_bind_what_was_lent_to_it_and_the_rest_comes_back(
    ports: PortService, sockets: FakeReservations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.services.ports.LEND_S", 0)
    taken = ports.take(parse_published(("8080:80", "8081:81")), NETWORK)
    ports.lend(taken)
    assert not sockets.held
    sockets.taken = frozenset({("tcp", 8080)})
    while not sockets.held:
        await settled()
    assert {slot.port for slot in sockets.held} == {8081}
    with pytest.raises(Conflict):
        ports.take(parse_published(("8080:80",)), NETWORK)


async def test_a_lent_port_that_is_given_back_stays_free(
    ports: PortService, sockets: FakeReservations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netagent.services.ports.LEND_S", 0)
    taken = ports.take(parse_published(("8080:80",)), NETWORK)
    ports.lend(taken)
    ports.release(taken)
    await settled()
    assert not sockets.held
    ports.take(parse_published(("8080:80",)), NETWORK)


async def test_the_next_agent_holds_ranges_again(agent: Agent) -> None:
    await agent.create_network()
    endpoint = await agent.attach("web", "staticnet", publish=("1000-1999:1000-1999",))
    assert endpoint.ports == (PortMapping(protocol="tcp", container_port=1000, host_port=1000, count=1000),)
    ports = PortService(agent.journal, sockets := FakeReservations())
    assert ports.restore() == []
    with pytest.raises(Conflict):
        ports.take(parse_published(("1500:80",)), NETWORK)
    async with running(ports):
        while len(sockets.held) < 1000:
            await settled()
