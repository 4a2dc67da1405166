"""The agents of a lab, and what they leave on their hosts for `lab down` to find."""

import socket

import pytest

from netagent.errors import Conflict
from netagent.lab import cgroup, process
from netagent.lab.host import AGENT_SOCKET
from netagent.lab.lab import Lab
from tests.support.lab import MakeLab, eventually, unique_name

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """Two hosts with their agents."""
    return make_lab(hosts=2)


def listens(lab: Lab, name: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(lab.host(name).path(AGENT_SOCKET))) == 0


def test_every_agent_answers_when_up_returns(lab: Lab) -> None:
    assert [listens(lab, host.name) for host in lab.hosts] == [True, True]
    for number in (1, 2):
        eventually(lambda number=number: f"198.18.0.{number}" in lab.host("h1").run("netagent", "host", "ls").stdout)


@pytest.mark.parametrize("way", ["kill", "stop"])
def test_agent_that_was_ended_can_be_started_again(lab: Lab, way: str) -> None:
    agent = lab.host("h2").agent
    getattr(agent, way)()
    assert not agent.running
    assert not listens(lab, "h2")
    assert listens(lab, "h1")
    agent.start()
    assert agent.running
    assert listens(lab, "h2")


def test_second_agent_of_a_host_is_refused(lab: Lab) -> None:
    with pytest.raises(Conflict, match="agent of h1 runs already"):
        lab.host("h1").agent.start()


def test_agent_gets_environment_and_options(lab: Lab) -> None:
    agent = lab.host("h2").agent
    agent.stop()
    agent.start(env={"LAB_PROBE": "here"}, options=["--log-level", "debug"])
    running = lab.host("h2").process("agent")
    assert running is not None
    seen = lab.host("h2").run("cat", f"/proc/{running.pid}/environ", f"/proc/{running.pid}/cmdline").stdout
    assert {"LAB_PROBE=here", "debug"} <= set(seen.split("\0"))


def test_down_ends_containers_and_removes_their_cgroups() -> None:
    with Lab.up(unique_name(), 1, 1) as lab:
        host = lab.host("h1")
        run = ["netagent", "run", "-d", "--network", "none", "--", "sleep", "1000"]
        containers = [host.run(*run).stdout.strip() for _ in range(2)]
        groups = set().union(*map(cgroup.of_container, containers))
        inside = process.family(lambda pid: bool(groups & cgroup.of_process(pid)))
        assert len(inside) == len(containers)
        lab.host("h1").agent.kill()
        # One has ended by itself: no process leads to its cgroups any more.
        process.end(inside[:1], within_s=0)
    assert not any(process.alive(found) for found in inside)
    assert not any(group.exists() for group in groups)
