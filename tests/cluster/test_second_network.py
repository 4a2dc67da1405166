"""A port published on a network that is not the container's default way out: answers leave by that network."""

import pytest

from netagent.lab.lab import Lab
from tests.support.hosts import fetches, inside, netagent, serve_name
from tests.support.lab import MakeLab

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    (h1, _) = lab.hosts
    netagent(h1, "network", "create", "--subnet", "10.61.0.0/24", "--subnet", "fd61::/64", "aside")
    netagent(h1, "network", "create", "--subnet", "10.62.0.0/24", "--subnet", "fd62::/64", "usual")
    serve_name(h1, "web", "--network", "name=aside", "--network", "name=usual,gw-priority=5", "-p", "4000:80")
    return lab


def test_answers_leave_by_the_network_that_was_asked(lab: Lab) -> None:
    h1, h2 = lab.hosts
    assert "via 10.62.0.1" in inside(h1, "web", "ip", "route", "show", "default").stdout
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    assert fetches(h2, f"http://[{h1.seat.ipv6}]:4000/hostname", "web")


def test_it_is_so_after_a_restart_and_nothing_is_left_to_do(lab: Lab) -> None:
    h1, h2 = lab.hosts
    h1.agent.restart()
    assert "operations bring" not in h1.log("agent").read_text().rpartition("stopping")[2]
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")


def test_rules_go_with_the_network(lab: Lab) -> None:
    h1, h2 = lab.hosts
    assert "from 10.61.0." in inside(h1, "web", "ip", "rule").stdout
    netagent(h1, "network", "disconnect", "usual", "web")
    assert "from 10.6" not in inside(h1, "web", "ip", "rule").stdout
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
