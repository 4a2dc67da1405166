"""A container in two networks: answers leave by the one that was asked, whichever is its default way out."""

import pytest

from netagent.lab.lab import Lab
from tests.support.hosts import fetches, fetches_inside, inside, netagent, run, serve_name
from tests.support.lab import MakeLab

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    (h1, _) = lab.hosts
    netagent(h1, "network", "create", "--subnet", "10.61.0.0/24", "--subnet", "fd61::/64", "aside")
    netagent(h1, "network", "create", "--subnet", "10.62.0.0/24", "--subnet", "fd62::/64", "usual")
    aside, usual = ("--network", "name=aside"), ("--network", "name=usual,gw-priority=5")
    serve_name(h1, "web", *aside, *usual, "-p", "4000:80")
    serve_name(h1, "shop", *usual, *aside, "-p", "4001:80")
    return lab


def test_answers_leave_by_the_network_that_was_asked(lab: Lab) -> None:
    h1, h2 = lab.hosts
    assert "via 10.62.0.1" in inside(h1, "web", "ip", "route", "show", "default").stdout
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    assert fetches(h2, f"http://[{h1.seat.ipv6}]:4000/hostname", "web")


def test_who_is_in_another_network_of_the_container_is_answered_through_the_one_that_he_asked(lab: Lab) -> None:
    (h1, _) = lab.hosts
    run(h1, "buyer", "--network", "aside")
    for here in (str(h1.ip), f"[{h1.seat.ipv6}]"):
        assert fetches_inside(h1, "buyer", f"http://{here}:4001/hostname", "shop"), here
    assert "from 10.62." in inside(h1, "shop", "ip", "rule").stdout
    netagent(h1, "network", "disconnect", "aside", "shop")
    assert "from 10.62." not in inside(h1, "shop", "ip", "rule").stdout
    netagent(h1, "network", "connect", "aside", "shop")
    assert fetches_inside(h1, "buyer", f"http://{h1.ip}:4001/hostname", "shop")


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
