"""Beside the real dockerd, firewalld and ufw, each denying by default: what must work works, theirs stays as it was."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import (
    address,
    fetches,
    fetches_inside,
    inside,
    netagent,
    pings,
    run,
    serve_name,
    telling_client_addresses,
)
from tests.support.lab import MakeLab, eventually
from tests.support.neighbours import BUS, dockerd, firewalld, ufw

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


class Neighbour(NamedTuple):
    """Somebody else's firewall: how it is started, what lists its rules, our marks there, does it deny input."""

    start: Callable[[Host], AbstractContextManager[None]]
    rules: str
    marks: tuple[str, ...]
    denies_input: bool


NEIGHBOURS = {
    "docker": Neighbour(dockerd, "iptables-nft -S; iptables-nft -t nat -S", ("-o na+ ", "-i na+ -o eth0"), False),
    "firewalld": Neighbour(
        firewalld,
        "firewall-cmd --list-all-zones; firewall-cmd --list-all-policies",
        ("netagent-in", "netagent-tunnels"),
        True,
    ),
    "ufw": Neighbour(
        ufw,
        "ufw show added; iptables-nft -S; ip6tables-nft -S",
        ("allow out on na+ comment", "out on eth0 comment", "port 53 comment", "4789/udp comment"),
        True,
    ),
}


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    netagent(h1, "network", "create", "other")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    serve_name(h1, "web", "--network", "staticnet", "-p", "4000:80")
    run(h1, "neighbour", "--network", "staticnet")
    run(h1, "stranger", "--network", "other")
    serve_name(h2, "remote", "--network", "staticnet")
    eventually(lambda: pings(h1, "web", address(h2, "remote")))
    return lab


@pytest.fixture(scope="module", params=NEIGHBOURS)
def neighbour(lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """Somebody else's firewall on h1, by name."""
    name: str = request.param
    with NEIGHBOURS[name].start(lab.hosts[0]):
        yield name


@pytest.fixture(params=["0", "1"], ids=["bridge-filter-off", "bridge-filter-on"])
def bridge_filter(lab: Lab, request: pytest.FixtureRequest) -> str:
    setting: str = request.param
    for name in ("iptables", "ip6tables"):
        lab.hosts[0].run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{name}={setting}")
    return setting


def _configure(host: Host, content: str) -> None:
    host.path("/etc/netagent/agent.toml").write_text(content)
    host.agent.restart()


def _rules(host: Host, neighbour: str) -> str:
    return host.run("sh", "-c", NEIGHBOURS[neighbour].rules, env=BUS).stdout


def _is_marked(host: Host, neighbour: str) -> bool:
    rules = _rules(host, neighbour)
    return all(mark in rules for mark in NEIGHBOURS[neighbour].marks)


def _checks(lab: Lab) -> dict[str, Callable[[], bool]]:
    """Everything that must work between this host's containers, other hosts and the outside, by name."""
    h1, h2 = lab.hosts
    web, remote = address(h1, "web"), address(h2, "remote")
    return {
        "published, from outside": lambda: fetches(h2, f"http://{h1.ip}:4000/hostname", "web"),
        "published, from the host": lambda: fetches(h1, f"http://{h1.ip}:4000/hostname", "web"),
        "published, on loopback": lambda: fetches(h1, "http://127.0.0.1:4000/hostname", "web"),
        "published, from another network": lambda: fetches_inside(
            h1, "stranger", f"http://{h1.ip}:4000/hostname", "web"
        ),
        "a neighbour": lambda: fetches_inside(h1, "neighbour", f"http://{web}/hostname", "web"),
        "to another host's container": lambda: fetches_inside(h1, "web", f"http://{remote}/hostname", "remote"),
        "from another host's container": lambda: fetches_inside(h2, "remote", f"http://{web}/hostname", "web"),
        "to the outside": lambda: _reaches_outside(h1, h2),
    }


def _reaches_outside(h1: Host, h2: Host) -> bool:
    with telling_client_addresses(h2, 7777):
        ask = ("socat", "-t", "20", "-", f"TCP4:{h2.ip}:7777,connect-timeout=2")
        return inside(h1, "stranger", *ask).stdout.strip() == str(h1.ip)


def test_everything_works_beside_it(lab: Lab, neighbour: str, bridge_filter: str) -> None:
    (h1, _) = lab.hosts
    eventually(lambda: _is_marked(h1, neighbour))
    for what, works in _checks(lab).items():
        assert works(), f"{what} beside {neighbour}, bridge filter {bridge_filter}"
    assert "blocked by" not in netagent(h1, "exposure").stderr


def test_without_marks_it_blocks_and_exposure_says_so(lab: Lab, neighbour: str) -> None:
    (h1, h2) = lab.hosts
    eventually(lambda: _is_marked(h1, neighbour))
    _configure(h1, "coexist = false\n")
    try:
        eventually(lambda: "netagent" not in _rules(h1, neighbour))
        checks = _checks(lab)
        # firewalld lets by itself pass what is translated, and to it containers are strangers only on their way out.
        assert not checks["to the outside"]()
        assert not checks["from another host's container"]()
        warnings = netagent(h1, "exposure").stderr
        assert "to the outside is blocked by" in warnings
        assert ("VXLAN from other hosts is blocked by" in warnings) == NEIGHBOURS[neighbour].denies_input
    finally:
        _configure(h1, "")
    eventually(lambda: _is_marked(h1, neighbour))
    eventually(lambda: _checks(lab)["from another host's container"]())
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")


def test_nothing_else_of_it_is_touched(lab: Lab, neighbour: str) -> None:
    """What it has of its own is the same with our marks and without, but for them."""
    (h1, _) = lab.hosts
    eventually(lambda: _is_marked(h1, neighbour))
    _configure(h1, f"[coexist]\n{neighbour} = false\n")
    try:
        eventually(lambda: "netagent" not in _rules(h1, neighbour))
        without = _rules(h1, neighbour)
    finally:
        _configure(h1, "")
    eventually(lambda: _is_marked(h1, neighbour))
    assert _without_marks(_rules(h1, neighbour)) == _without_marks(without)


def _without_marks(rules: str) -> list[str]:
    """Return the lines that are not ours; of firewalld's listings the paragraphs."""
    if "\n\n" in rules:
        return sorted(p for p in rules.split("\n\n") if not p.lstrip().startswith("netagent"))
    # iptables shows ufw's rules without their comments; "(None)" is what ufw says of none.
    ours = ("netagent", " na+", "--dport 4789", "(None)")
    return [line for line in rules.splitlines() if not any(word in line for word in ours)]


def test_withdrawing_takes_all_marks_away(lab: Lab, neighbour: str) -> None:
    (h1, _) = lab.hosts
    eventually(lambda: _is_marked(h1, neighbour))
    h1.agent.stop()
    try:
        assert netagent(h1, "agent", "--withdraw").stdout
        assert "netagent" not in _rules(h1, neighbour)
        assert netagent(h1, "agent", "--withdraw").stdout == ""
    finally:
        h1.agent.start()
    eventually(lambda: _is_marked(h1, neighbour))


UNDO = {
    "docker": "iptables-nft -F DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN",
    "firewalld": "firewall-cmd --reload",
    "ufw": "ufw route delete allow out on na+; ufw reload",
}


def test_marks_and_tables_are_back_after_it_was_flushed_or_reloaded(lab: Lab, neighbour: str) -> None:
    h1, h2 = lab.hosts
    eventually(lambda: _is_marked(h1, neighbour))
    before = _rules(h1, neighbour)
    h1.run("sh", "-ec", UNDO[neighbour], env=BUS)

    def is_as_before() -> bool:
        assert sorted(_rules(h1, neighbour).splitlines()) == sorted(before.splitlines())
        return True

    eventually(is_as_before)
    assert "table inet netagent {" in h1.run("nft", "list", "ruleset").stdout
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    eventually(lambda: _checks(lab)["from another host's container"]())
