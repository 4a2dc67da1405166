"""An agent is killed at every step of its part in a network's move to another driver; the move ends all the same.

Which steps there are is not written here: one move is run while the agent notes the crash points that it reaches.
Moves there and back are in turns, and each is interrupted once.
"""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.crash import arm, disarm, start_agent
from tests.support.hosts import dump, netagent, pings, run, same
from tests.support.lab import MakeLab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

DRIVERS = ("route", "vxlan")
RECORD = "/netagent/v1/networks/net"


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "net")
    eventually(lambda: netagent(h2, "network", "inspect", "net", check=False).returncode == 0)
    run(h1, "c1", "--network", "net")
    run(h2, "c2", "--network", "net")
    run(h2, "fixed", "--network", "net", "--ip", "192.168.0.9")
    h2.agent.stop()
    start_agent(h2)
    eventually(lambda: pings(h1, "c1", "192.168.0.9"))
    return lab


def _is_moved(lab: Lab, driver: str) -> bool:
    etcd = lab.etcd[0]
    record = etcd.run("etcdctl", "--endpoints", etcd.url, "get", RECORD, "--print-value-only").stdout.replace(" ", "")
    return '"before":null' in record and f'"driver":"{driver}"' in record


def _move(lab: Lab, driver: str, number: int) -> list[str]:
    """Move the network, h2 dying at the step ``number`` if it gets there; return the steps that it took."""
    h1, h2 = lab.hosts
    arm(h2, number)
    netagent(h1, "network", "update", "--driver", driver, "net")
    # The old way is taken down when the move has ended, and these are steps too.
    eventually(lambda: not h2.agent.running or (_is_moved(lab, driver) and _has_one_way(h2, driver)))
    steps = disarm(h2)
    eventually(lambda: _is_alive(h2) and _is_moved(lab, driver))
    return steps


def _has_one_way(host: Host, driver: str) -> bool:
    return ("nav" in host.run("ip", "-br", "link").stdout) is (driver == "vxlan")


def _is_alive(host: Host) -> bool:
    """Start the agent if it was just about to die when nothing was armed any more."""
    if not host.agent.running:
        start_agent(host)
    return True


def _steps_worth_a_kill(steps: list[str]) -> list[int]:
    """Return their numbers, without those after which nothing happens before the next, and one of several alike."""
    begun = [number for number, name in enumerate(steps, 1) if not name.endswith(".after")]
    return [number for number in begun if number < 3 or steps[number - 1] != steps[number - 3]] + [len(steps)]


def test_a_move_ends_wherever_an_agent_is_killed_in_it(lab: Lab) -> None:
    h1, h2 = lab.hosts
    steps: dict[str, list[str]] = {}
    expected: dict[str, list[dict[str, str]]] = {}
    for driver in DRIVERS:
        steps[driver] = _move(lab, driver, 1_000_000)
        eventually(lambda: pings(h1, "c1", "192.168.0.9"))
        expected[driver] = _settled(lab)
    assert all("store.transact" in reached for reached in steps.values())
    turns = {driver: _steps_worth_a_kill(steps[driver]) for driver in DRIVERS}
    for turn in range(max(map(len, turns.values()))):
        for driver in DRIVERS:
            number = turns[driver][turn] if turn < len(turns[driver]) else 1_000_000
            where = f"to {driver}: killed at step {number}: {_move(lab, driver, number)[-1:]}"
            try:
                eventually(lambda driver=driver: _is_alive(h2) and same(h2, expected[driver][1]))
            except AssertionError as error:
                error.add_note(where)
                raise
        eventually(lambda: same(h1, expected[DRIVERS[-1]][0]))
        eventually(lambda: pings(h1, "c1", "192.168.0.9"))


def _settled(lab: Lab) -> list[dict[str, str]]:
    """Return what the hosts hold when they do not change any more."""
    before = [dump(host) for host in lab.hosts]
    while (now := [dump(host) for host in lab.hosts]) != before:
        before = now
    return now
