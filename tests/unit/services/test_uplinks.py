"""Which interface leads to the other hosts: an address is followed at once, another interface once it has lasted."""

from dataclasses import replace

import pytest

from netagent.model.address import parse_address
from netagent.model.host import Host, HostFacts
from netagent.services import uplinks
from netagent.services.uplinks import UplinkService
from tests.support.agent import Agent
from tests.support.world import a_host

FACTS = HostFacts(interfaces={}, routes=(), outside=("eth0", "eth1"))


def at(interface: str, *addresses: str) -> Host:
    return replace(a_host(1), interface=interface, underlay=tuple(map(parse_address, addresses)))


class Machine:
    """A host whose way to the others is what a test says."""

    def __init__(self, agent: Agent) -> None:
        self.now = agent.context.host
        self.service = UplinkService(agent.context, lambda _: self.now)
        self._context = agent.context
        agent.kernel._facts = FACTS

    async def looks(self, host: Host) -> Host:
        """Return what the others are told after a look at a machine that is so."""
        self.now = host
        await self.service.look()
        return self._context.host


async def test_another_address_of_the_interface_is_told_at_once(agent: Agent) -> None:
    moved = at("eth0", "198.18.0.7")
    assert await Machine(agent).looks(moved) == moved


async def test_another_interface_is_told_once_it_has_lasted(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, first, other = Machine(agent), agent.context.host, at("eth1", "198.18.0.7")
    assert await machine.looks(other) == first
    monkeypatch.setattr(uplinks, "MOVE_S", 0.0)
    assert await machine.looks(other) == other


async def test_the_time_begins_anew_when_the_first_interface_was_back(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, first, other = Machine(agent), agent.context.host, at("eth1", "198.18.0.7")
    assert await machine.looks(other) == first
    assert await machine.looks(first) == first
    begun = machine.service._since
    assert await machine.looks(other) == first
    assert machine.service._since > begun


async def test_an_interface_for_containers_or_guests_is_never_told(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplinks, "MOVE_S", 0.0)
    machine, first = Machine(agent), agent.context.host
    assert await machine.looks(at("docker0", "172.17.0.1")) == first
    assert await machine.looks(at("eth0")) == first
