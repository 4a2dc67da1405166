"""What a host does in Open vSwitch about other hosts, killed at every step of it."""

from functools import partial

import pytest

from netagent.lab.lab import Lab
from tests.support.crash import Reached, Verb, kill_at_every_point, start_agent
from tests.support.hosts import netagent, run
from tests.support.lab import MakeLab
from tests.support.stored_peer import peer_comes, peer_goes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

VERBS = {
    "peer-comes": Verb(act=partial(peer_comes, network="tunnel"), settle=peer_goes),
    "peer-goes": Verb(prepare=partial(peer_comes, network="tunnel"), act=peer_goes, settle=peer_goes),
}


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=1, agents=False, underlay="ovs")
    (host,) = lab.hosts
    start_agent(host)
    netagent(host, "network", "create", "--driver", "gre", "--subnet", "192.168.0.0/16", "tunnel")
    run(host, "keeper", "--network", "tunnel")
    return lab


@pytest.mark.parametrize("name", VERBS)
def test_a_kill_at_any_point_leaves_nothing_half_done(lab: Lab, reached: Reached, name: str) -> None:
    kill_at_every_point(lab, reached, name, VERBS[name])


def test_every_crash_point_of_the_code_was_tried(reached: Reached) -> None:
    missing = reached.missing()
    assert not missing, f"no verb reaches {sorted(missing)}: add one to VERBS of a tests/cluster/test_crash_*.py"
