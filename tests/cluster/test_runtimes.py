"""One network for all: a container of every runtime, on three hosts, resolving and reaching one another."""

import pytest

from netagent.lab.demo_runtimes import Member, address_of, answers, reaches, start_members
from netagent.lab.lab import Lab
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    return make_lab(3)


@pytest.fixture(scope="module")
def members(lab: Lab) -> list[Member]:
    members = start_members(lab)
    for member in members:
        eventually(lambda member=member: address_of(member))
    return members


def test_every_runtimes_container_resolves_and_reaches_every_other(members: list[Member]) -> None:
    assert len({address_of(member) for member in members}) == len(members)
    for source in members:
        for target in members:
            if source is not target:
                eventually(lambda source=source, target=target: reaches(source, target))


def test_a_port_that_one_runtime_publishes_is_reached_from_the_others_containers(members: list[Member]) -> None:
    publisher = next(member for member in members if member.runtime == "Podman")
    for member in members:
        assert eventually(lambda member=member: answers(member, str(publisher.host.ip), 8080)), member.runtime


def test_all_go_on_while_an_agent_restarts_and_their_removal_leaves_nothing(lab: Lab, members: list[Member]) -> None:
    for host in lab.hosts:
        host.agent.restart()
    for source in members:
        for target in members:
            if source is not target:
                eventually(lambda source=source, target=target: reaches(source, target))
    for member in members:
        member.remove()
    for host in lab.hosts:
        eventually(lambda host=host: host.run("netagent", "ps", "-aq").stdout == "")
    # Other hosts hear a little later that they are gone.
    eventually(lambda: lab.hosts[0].run("netagent", "network", "rm", "app", check=False).returncode == 0)
