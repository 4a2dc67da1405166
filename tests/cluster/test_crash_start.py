"""A container that comes, killed at every step of it."""

import pytest

from netagent.lab.lab import Lab
from tests.support.crash import Reached, Verb, kill_at_every_point, remove_container, run_container
from tests.support.hosts import netagent

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

VERBS = {
    "run": Verb(act=run_container, settle=remove_container),
    "start": Verb(
        prepare=lambda host: (run_container(host), netagent(host, "stop", "-t", "0", "crash")),
        act=lambda host: netagent(host, "start", "crash", check=False),
        settle=remove_container,
    ),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_kill_at_any_point_leaves_nothing_half_done(crash_lab: Lab, reached: Reached, name: str) -> None:
    kill_at_every_point(crash_lab, reached, name, VERBS[name])


def test_every_crash_point_of_the_code_was_tried(reached: Reached) -> None:
    missing = reached.missing()
    assert not missing, f"no verb reaches {sorted(missing)}: add one to VERBS of a tests/cluster/test_crash_*.py"
