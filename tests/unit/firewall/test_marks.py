"""What is asked of other people's firewalls, and how what is there already becomes that."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from netagent.coexist import docker, firewalld
from netagent.firewall.marks import INSIDE, Needs, Presence, docker_rules, firewalld_files, ufw_rules

NEEDS = Needs(outside=("eth0", "wlan0"), tunnels=frozenset({"vxlan"}))
OURS = docker_rules(NEEDS)


def test_containers_are_let_out_towards_the_outside_only() -> None:
    ways_out = [rule for rule in OURS if "RELATED" not in rule and rule.startswith("-i")]
    assert [rule.split()[:4] for rule in ways_out] == [["-i", INSIDE, "-o", "eth0"], ["-i", INSIDE, "-o", "wlan0"]]
    assert "ufw route allow in on na+ out on eth0" in ufw_rules(NEEDS)
    assert not any(rule == "ufw route allow in on na+" for rule in ufw_rules(NEEDS))


def test_a_bridge_of_somebody_else_is_named() -> None:
    assert any("-o kbr0 " in rule for rule in docker_rules(Needs(inside=(INSIDE, "kbr0"))))
    assert '<interface name="kbr0"/>' in firewalld_files(Needs(inside=(INSIDE, "kbr0")))["zones/netagent.xml"]


def test_tunnels_are_let_in_only_where_a_network_has_some() -> None:
    assert "ufw allow 4789/udp" not in ufw_rules(Needs())
    assert "policies/netagent-tunnels.xml" not in firewalld_files(Needs())
    both = Needs(tunnels=frozenset({"vxlan", "gre"}))
    assert {"ufw allow 4789/udp", "ufw allow to any proto gre"} <= set(ufw_rules(both))
    assert '<protocol value="gre"/>' in firewalld_files(both)["policies/netagent-tunnels.xml"]


def test_firewalld_files_are_well_formed() -> None:
    for text in firewalld_files(NEEDS).values():
        ElementTree.fromstring(text)


LISTINGS = {
    "empty": ["-N DOCKER-USER", "-A DOCKER-USER -j RETURN"],
    "no-return": ["-N DOCKER-USER"],
    "rules-of-the-administrator": ["-A DOCKER-USER -s 203.0.113.7/32 -j DROP", "-A DOCKER-USER -j RETURN"],
    "old-marks": [f"-A DOCKER-USER {OURS[0]}", "-A DOCKER-USER -j RETURN", f"-A DOCKER-USER {OURS[2]}"],
    "somebody-elses-comment": ["-A DOCKER-USER -m comment --comment netagent-like -j DROP", "-A DOCKER-USER -j RETURN"],
}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS.keys())
def test_our_rules_go_behind_others_and_before_the_return(listing: list[str]) -> None:
    chain = [line.removeprefix("-A DOCKER-USER ") for line in listing if line.startswith("-A")]
    others = [rule for rule in chain if "--comment netagent " not in rule and rule != "-j RETURN"]
    returns = ["-j RETURN"] if "-j RETURN" in chain else []
    marked = _carried_out(chain, docker._script(listing, OURS))
    assert marked == [*others, *OURS, *returns]
    assert docker._script([f"-A DOCKER-USER {rule}" for rule in marked], OURS) == ""
    again = docker._script([f"-A DOCKER-USER {rule}" for rule in marked], ())
    assert _carried_out(marked, again) == [*others, *returns]


def _carried_out(chain: list[str], script: str) -> list[str]:
    """Return the rules of a chain after iptables-restore was given ``script``."""
    rules = list(chain)
    for line in script.splitlines():
        if line.startswith("-D"):
            rules.remove(line.removeprefix("-D DOCKER-USER "))
        elif line.startswith("-I"):
            _, _, place, rule = line.split(" ", 3)
            rules.insert(int(place) - 1, rule)
    return rules


def test_firewalld_is_left_alone_while_it_does_not_run(tmp_path: Path) -> None:
    assert firewalld.Firewalld(tmp_path).reconcile(NEEDS, Presence()) == []
    assert list(tmp_path.iterdir()) == []


def test_files_for_firewalld_are_removed_also_while_it_does_not_run(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "zones/netagent.xml", tmp_path / "zones/public.xml"
    ours.parent.mkdir()
    for path in (ours, theirs):
        path.write_text("<zone/>")
    assert firewalld.Firewalld(tmp_path).reconcile(None, Presence()) == ["no zone netagent in firewalld"]
    assert (ours.exists(), theirs.exists()) == (False, True)
