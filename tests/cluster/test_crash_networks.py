"""Networks that come and go, killed at every step of it."""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.crash import POINTS, Reached, Verb, kill_at_every_point
from tests.support.hosts import netagent, run
from tests.support.lab import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def _create_network(host: Host) -> None:
    netagent(host, "network", "create", "--driver", "vxlan", "--subnet", "10.66.0.0/16", "brief", check=False)


def _remove_network(host: Host) -> None:
    eventually(lambda: _is_gone(netagent(host, "network", "rm", "brief", check=False).stderr))


def _is_gone(complaint: str) -> bool:
    return not complaint or "not found" in complaint


def _use_network_once(host: Host) -> None:
    _create_network(host)
    run(host, "user", "--network", "brief")


def _leave_network(host: Host) -> None:
    """Remove a network's last container and wait until the journal has let go of the network's records."""
    netagent(host, "rm", "-f", "user", check=False)
    trace = f"cat {POINTS}/trace 2>/dev/null || true"
    eventually(lambda: not host.agent.running or "disown.after" in host.run("sh", "-c", trace).stdout)


def _clear_network(host: Host) -> None:
    netagent(host, "rm", "-f", "user", check=False)
    _remove_network(host)


VERBS = {
    "last-container": Verb(prepare=_use_network_once, act=_leave_network, settle=_clear_network),
    "network-create": Verb(act=_create_network, settle=_remove_network),
    "network-rm": Verb(
        prepare=lambda host: (
            _create_network(host),
            run(host, "user", "--network", "brief"),
            netagent(host, "rm", "-f", "user"),
        ),
        act=lambda host: netagent(host, "network", "rm", "brief", check=False),
        settle=_remove_network,
    ),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_kill_at_any_point_leaves_nothing_half_done(crash_lab: Lab, reached: Reached, name: str) -> None:
    kill_at_every_point(crash_lab, reached, name, VERBS[name])


def test_every_crash_point_of_the_code_was_tried(reached: Reached) -> None:
    missing = reached.missing()
    assert not missing, f"no verb reaches {sorted(missing)}: add one to VERBS of a tests/cluster/test_crash_*.py"
