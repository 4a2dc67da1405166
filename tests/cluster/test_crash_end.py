"""A container that ends, or leaves a network, killed at every step of it."""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.crash import Reached, Verb, kill_at_every_point, remove_container, run_container
from tests.support.hosts import netagent

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def _connect(host: Host) -> None:
    """Connect a container to a second network, which takes its default route over."""
    options = ("--gw-priority", "9", "--ip", "192.168.0.8")
    netagent(host, "network", "connect", *options, "staticnet", "keeper-app", check=False)


def _disconnect(host: Host) -> None:
    netagent(host, "network", "disconnect", "-f", "staticnet", "keeper-app", check=False)


VERBS = {
    "stop": Verb(
        prepare=run_container,
        act=lambda h: netagent(h, "stop", "-t", "0", "crash", check=False),
        settle=remove_container,
    ),
    "rm": Verb(
        prepare=run_container,
        act=lambda host: netagent(host, "rm", "-f", "crash", check=False),
        settle=remove_container,
    ),
    "disconnect": Verb(prepare=_connect, act=_disconnect, settle=_disconnect),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_kill_at_any_point_leaves_nothing_half_done(crash_lab: Lab, reached: Reached, name: str) -> None:
    kill_at_every_point(crash_lab, reached, name, VERBS[name])


def test_every_crash_point_of_the_code_was_tried(reached: Reached) -> None:
    missing = reached.missing()
    assert not missing, f"no verb reaches {sorted(missing)}: add one to VERBS of a tests/cluster/test_crash_*.py"
