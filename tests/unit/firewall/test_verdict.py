"""What somebody else's rules would do with a packet, from listings as nft prints them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from netagent.firewall.packet import Packet
from netagent.firewall.verdict import Obstacle, Rules
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

IIF = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}
OURS = {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "na*"}}
DOCKER0 = {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "docker0"}}
CLIENT = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "203.0.113.7"}}
ORIGINAL = {"match": {"op": "==", "left": {"ct": {"key": "proto-dst", "dir": "original"}}, "right": 4000}}
REPLIES = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
DNAT = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}
PORTS = {"payload": {"protocol": "tcp", "field": "dport"}}
UNKNOWN = {"xt": {"type": "match", "name": "addrtype"}}
COUNTER = {"counter": {"packets": 1, "bytes": 2}}
ACCEPT, DROP, RETURN = {"accept": None}, {"drop": None}, {"return": None}
REJECT = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}


def _jump(chain: str, kind: str = "jump") -> dict[str, Any]:
    return {kind: {"target": chain}}


def _rules(policy: str, *base: list[Any], sets: dict[str, Any] | None = None, **chains: list[list[Any]]) -> Rules:
    place = {"family": "ip", "table": "filter"}
    hook = {"type": "filter", "hook": "forward", "prio": 0, "policy": policy}
    listing: list[Any] = [{"chain": {**place, "name": "FORWARD", **hook}}]
    listing += [{"set": {**place, "name": name, "elem": elements}} for name, elements in (sets or {}).items()]
    for name, rules in {"FORWARD": list(base), **chains}.items():
        listing += [{"rule": {**place, "chain": name, "handle": i, "expr": rule}} for i, rule in enumerate(rules, 1)]
    return Rules(listing=json.loads(json.dumps(listing)))


CASES = {
    "policy-accept": (_rules("accept"), "passes"),
    "policy-drop": (_rules("drop"), "blocked"),
    "another-interface": (_rules("accept", [DOCKER0, COUNTER, DROP]), "passes"),
    "our-interfaces-by-wildcard": (_rules("drop", [OURS, ACCEPT]), "passes"),
    "an-unknown-client": (_rules("accept", [CLIENT, DROP]), "maybe"),
    "the-port-that-the-client-used": (_rules("accept", [ORIGINAL, DROP]), "blocked"),
    "replies-only": (_rules("drop", [REPLIES, ACCEPT]), "blocked"),
    "whatever-is-translated": (_rules("drop", [DNAT, ACCEPT]), "passes"),
    "a-reject": (_rules("accept", [IIF, REJECT]), "blocked"),
    "an-extension-of-iptables": (_rules("accept", [IIF, UNKNOWN, DROP]), "maybe"),
    "an-extension-before-an-accept": (_rules("drop", [UNKNOWN, ACCEPT]), "maybe"),
    "a-jump-that-comes-back": (_rules("drop", [_jump("user")], user=[[RETURN]]), "blocked"),
    "a-jump-that-ends": (_rules("drop", [_jump("user")], user=[[OURS, COUNTER, ACCEPT], [RETURN]]), "passes"),
    "a-goto-that-does-not-come-back": (_rules("drop", [IIF, _jump("zone", "goto")], [ACCEPT], zone=[]), "blocked"),
    "a-loop": (_rules("drop", [_jump("user")], user=[[_jump("user")]]), "blocked"),
    "a-range-of-ports": (
        _rules("accept", [{"match": {"op": "==", "left": PORTS, "right": {"range": [70, 90]}}}, DROP]),
        "blocked",
    ),
    "other-ports-than-these": (
        _rules("accept", [{"match": {"op": "!=", "left": PORTS, "right": {"set": [80, 443]}}}, DROP]),
        "passes",
    ),
    "a-named-set": (
        _rules(
            "accept",
            [
                {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "@nets"}},
                DROP,
            ],
            sets={"nets": [{"prefix": {"addr": "172.16.0.0", "len": 24}}]},
        ),
        "blocked",
    ),
    "a-set-that-is-not-there": (
        _rules("accept", [{"match": {"op": "==", "left": PORTS, "right": "@gone"}}, DROP]),
        "maybe",
    ),
    "another-protocol": (
        _rules(
            "accept",
            [{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 80}}, DROP],
        ),
        "passes",
    ),
    "a-map-of-verdicts": (
        _rules("accept", [{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["eth0", DROP]]}}}]),
        "maybe",
    ),
}


@pytest.mark.parametrize(("rules", "expected"), CASES.values(), ids=CASES.keys())
def test_a_packet_passes_is_blocked_or_may_be(rules: Rules, expected: str) -> None:
    found = rules.obstacles(PUBLISHED)
    assert {(): "passes", (True,): "blocked", (False,): "maybe"}[tuple(o.certain for o in found)] == expected


def test_an_obstacle_names_the_rule_in_its_own_words() -> None:
    rules = _rules("accept", [COUNTER], [CLIENT, DROP])
    named = replace(rules, texts={("ip", "filter", 2): "ip saddr 203.0.113.7 drop"})
    assert named.obstacles(PUBLISHED) == (
        Obstacle(where="ip filter FORWARD: ip saddr 203.0.113.7 drop", certain=False),
    )
    assert rules.obstacles(PUBLISHED)[0].where == "ip filter FORWARD: rule with handle 2"


@pytest.mark.parametrize(
    ("extension", "text", "is_blocked"),
    [
        ("conntrack", "ct state related,established accept", True),
        ("conntrack", "ct state new,untracked accept", False),
        ("conntrack", "ct state ! invalid accept", False),
        ("addrtype", "fib daddr type broadcast accept", True),
        ("addrtype", "fib daddr type != local accept", False),
    ],
)
def test_common_extensions_of_iptables_are_known_by_their_text(extension: str, text: str, is_blocked: bool) -> None:
    rules = _rules("drop", [{"xt": {"type": "match", "name": extension}}, ACCEPT])
    named = replace(rules, texts={("ip", "filter", 1): text})
    assert bool(named.obstacles(PUBLISHED)) is is_blocked
    assert [obstacle.certain for obstacle in rules.obstacles(PUBLISHED)] == [False]


def test_a_chain_of_another_family_or_hook_is_not_asked() -> None:
    rules = _rules("drop")
    assert not rules.obstacles(replace(PUBLISHED, version=6))
    assert not rules.obstacles(replace(PUBLISHED, hook="input"))
    assert rules.obstacles(PUBLISHED)
