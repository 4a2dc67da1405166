"""Namespaces of others that come and go, and limits of what passes, killed at every step of it."""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.crash import SANDBOX, Reached, Verb, kill_at_every_point
from tests.support.hosts import netagent

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def _attach(host: Host) -> None:
    options = ("--network", "app", "-p", "4000:80", "--ip", "10.55.0.9")
    netagent(host, "attach", "--netns", SANDBOX, "--name", "crash", *options, check=False)


def _detach(host: Host) -> None:
    result = netagent(host, "detach", "crash", check=False)
    assert result.returncode == 0 or "No such container" in result.stderr, result.stderr


def _cni(host: Host, command: str) -> None:
    configuration = {
        "cniVersion": "1.1.0",
        "name": "app",
        "type": "netagent",
        "runtimeConfig": {"portMappings": [{"hostPort": 4002, "containerPort": 80, "protocol": "tcp"}]},
    }
    env = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "crash",
        "CNI_NETNS": SANDBOX,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    }
    host.run("/opt/cni/bin/netagent", check=False, env=env, stdin=json.dumps(configuration))


def _limit(host: Host) -> None:
    netagent(host, "update", "--rate-in", "10mbit", "--rate-out", "10mbit", "keeper-app", check=False)


def _unlimit(host: Host) -> None:
    netagent(host, "update", "--rate-in", "none", "--rate-out", "none", "keeper-app", check=False)


VERBS = {
    "attach": Verb(act=_attach, settle=_detach),
    "detach": Verb(prepare=_attach, act=lambda h: netagent(h, "detach", "crash", check=False), settle=_detach),
    "cni-add": Verb(act=lambda host: _cni(host, "ADD"), settle=lambda host: _cni(host, "DEL")),
    "cni-del": Verb(
        prepare=lambda host: _cni(host, "ADD"),
        act=lambda host: _cni(host, "DEL"),
        settle=lambda host: _cni(host, "DEL"),
    ),
    "limit": Verb(act=_limit, settle=_unlimit),
    "unlimit": Verb(prepare=_limit, act=_unlimit, settle=_unlimit),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_kill_at_any_point_leaves_nothing_half_done(crash_lab: Lab, reached: Reached, name: str) -> None:
    kill_at_every_point(crash_lab, reached, name, VERBS[name])


def test_every_crash_point_of_the_code_was_tried(reached: Reached) -> None:
    missing = reached.missing()
    assert not missing, f"no verb reaches {sorted(missing)}: add one to VERBS of a tests/cluster/test_crash_*.py"
