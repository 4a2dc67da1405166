"""Rules of iptables-legacy as it saves them, judged as nftables' are."""

from dataclasses import replace

import pytest

from netagent.firewall.legacy import SavedRules
from netagent.firewall.packet import Packet
from netagent.firewall.verdict import Rules
from netagent.model.address import parse_address

PUBLISHED = Packet(
    hook="forward",
    version=4,
    protocol="tcp",
    iif="eth0",
    oif="nab1",
    destination=parse_address("172.16.0.2"),
    port=80,
    original_port=4000,
)


def judged(*rules: str, policy: str = "ACCEPT", packet: Packet = PUBLISHED, version: int = 4) -> str:
    """Return whether a packet is blocked, maybe, or passes."""
    saved = "\n".join(("*filter", f":FORWARD {policy} [0:0]", ":THEIRS - [0:0]", *rules, "COMMIT"))
    read = SavedRules(saved, version)
    found = Rules(listing=read.listing, texts=read.texts).obstacles(packet)
    return {(): "passes", (True,): "blocked", (False,): "maybe"}[tuple(obstacle.certain for obstacle in found)]


CASES = {
    "nothing": ((), "passes"),
    "interface": (("-A FORWARD -i eth0 -o nab1 -j DROP",), "blocked"),
    "another-interface": (("-A FORWARD ! -o nab1 -j DROP",), "passes"),
    "wildcard": (("-A FORWARD -o na+ -j REJECT --reject-with icmp-port-unreachable",), "blocked"),
    "destination": (("-A FORWARD -d 172.16.0.0/24 -p tcp -m tcp --dport 80:90 -j DROP",), "blocked"),
    "another-destination": (("-A FORWARD ! -d 172.16.0.0/24 -j DROP",), "passes"),
    "source": (("-A FORWARD -s 10.0.0.0/8 -j DROP",), "maybe"),
    "another-protocol": (("-A FORWARD -p udp -m udp --dport 80 -j DROP",), "passes"),
    "protocol-by-number": (("-A FORWARD -p 6 -j DROP",), "blocked"),
    "several-ports": (("-A FORWARD -p tcp -m multiport --dports 22,80 -j DROP",), "blocked"),
    "port-as-asked": (("-A FORWARD -p tcp -m conntrack --ctorigdstport 4000 -j DROP",), "blocked"),
    "replies": (("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j DROP",), "passes"),
    "new": (('-A FORWARD -m state --state NEW -m comment --comment "a b -j" -j DROP',), "blocked"),
    "translated": (("-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT", "-A FORWARD -j DROP"), "passes"),
    "local": (("-A FORWARD -m addrtype --dst-type LOCAL -j DROP",), "passes"),
    "unknown": (("-A FORWARD -m limit --limit 3/min -j DROP",), "maybe"),
    "unknown-flag": (("-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j DROP",), "maybe"),
    "told": (("-A FORWARD -j LOG --log-prefix x", "-A FORWARD -j DROP"), "blocked"),
    "chain": (("-A FORWARD -j THEIRS", "-A THEIRS -o nab1 -j DROP"), "blocked"),
    "chain-returns": (("-A FORWARD -j THEIRS", "-A THEIRS -o nab1 -j RETURN", "-A THEIRS -j DROP"), "passes"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_packet_is_judged_by_saved_rules(case: str) -> None:
    rules, expected = CASES[case]
    assert judged(*rules) == expected


def test_a_policy_holds_for_what_no_rule_decides() -> None:
    assert judged("-A FORWARD -i docker0 -j ACCEPT", policy="DROP") == "blocked"
    assert judged("-A FORWARD -o nab1 -j ACCEPT", policy="DROP") == "passes"


def test_each_family_has_rules_of_its_own() -> None:
    packet = replace(PUBLISHED, version=6, destination=parse_address("fd00::2"))
    assert judged("-A FORWARD -d fd00::/64 -j DROP", packet=packet, version=6) == "blocked"
    assert judged("-A FORWARD -j DROP", packet=packet, version=4) == "passes"


def test_the_place_is_told_in_the_words_that_were_saved() -> None:
    read = SavedRules("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -o na+ -j DROP\nCOMMIT\n", 4)
    (found,) = Rules(listing=read.listing, texts=read.texts).obstacles(PUBLISHED)
    assert found.where == "ip filter (legacy) FORWARD: -o na+ -j DROP"
