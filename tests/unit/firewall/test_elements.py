"""The firewall's promises, as the elements that keep them. What the rules do to packets is tested in tests/kernel."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from netagent.firewall import isolate, lanes, masquerade, publish, routed, tunnel
from netagent.firewall.counting import ports_in
from netagent.firewall.elements import overlap
from netagent.firewall.ruleset import CHAINS, SETS, merge, render_ruleset
from netagent.model.address import parse_prefix
from netagent.model.outward import parse_exemptions, parse_outbound
from tests.support.world import a_local_network, an_endpoint, an_overlay


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (
            "4000:80",
            {
                "publish4": {"tcp . 4000 : 10.0.0.2 . 80"},
                "publish6": {"tcp . 4000 : fd00::2 . 80"},
            },
        ),
        ("53:53/udp", {"publish4": {"udp . 53 : 10.0.0.2 . 53"}, "publish6": {"udp . 53 : fd00::2 . 53"}}),
        ("127.0.0.1:4000:80", {"publish4_at": {"127.0.0.1 . tcp . 4000 : 10.0.0.2 . 80"}}),
        ("[fd00::9]:4000:80", {"publish6_at": {"fd00::9 . tcp . 4000 : fd00::2 . 80"}}),
        (
            "8000-8999:8000-8999",
            {"ranges4": {"tcp . 8000-8999 : 10.0.0.2"}, "ranges6": {"tcp . 8000-8999 : fd00::2"}},
        ),
        ("127.0.0.1:1-9:1-9/udp", {"ranges4_at": {"127.0.0.1 . udp . 1-9 : 10.0.0.2"}}),
        (
            "0.0.0.0:8000-8001:80-81",
            {"publish4": {"tcp . 8000 : 10.0.0.2 . 80", "tcp . 8001 : 10.0.0.2 . 81"}},
        ),
    ],
)
def test_a_published_port_is_one_element_a_family(port: str, expected: dict[str, set[str]]) -> None:
    elements = publish.elements(an_endpoint("10.0.0.2", "fd00::2", publish=(port,)))
    assert elements.pop("hairpin4") == {"10.0.0.2 . 10.0.0.2"}
    assert elements.pop("hairpin6") == {"fd00::2 . fd00::2"}
    assert elements == expected


@pytest.mark.parametrize(
    ("port", "limited", "allowed"),
    [
        (
            "0.0.0.0:5432:5432@10.0.0.0/8,192.0.2.7",
            {"0.0.0.0/0 . tcp . 5432"},
            {"10.0.0.0/8 . 0.0.0.0/0 . tcp . 5432", "192.0.2.7 . 0.0.0.0/0 . tcp . 5432"},
        ),
        (
            "127.0.0.1:1-9:1-9/udp@127.0.0.1",
            {"127.0.0.1 . udp . 1-9"},
            {"127.0.0.1 . 127.0.0.1 . udp . 1-9"},
        ),
        ("0.0.0.0:80:80@fd00::/8", {"0.0.0.0/0 . tcp . 80"}, set()),
    ],
)
def test_a_port_with_sources_is_limited_to_them(port: str, limited: set[str], allowed: set[str]) -> None:
    elements = publish.elements(an_endpoint("10.0.0.2", publish=(port,)))
    assert elements["limited4"] == limited
    assert elements.get("allowed4", set()) == allowed


def test_a_port_with_sources_of_one_family_is_closed_to_the_other() -> None:
    elements = publish.elements(an_endpoint("10.0.0.2", "fd00::2", publish=("80:80@10.0.0.0/8",)))
    assert elements["limited6"] == {"::/0 . tcp . 80"}
    assert "allowed6" not in elements


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("tcp . 8000-8999", "tcp . 8005", True),
        ("tcp . 8000-8999", "tcp . 8999-9000", True),
        ("tcp . 8000-8999", "tcp . 9000", False),
        ("tcp . 8000-8999", "udp . 8005", False),
        ("10.0.0.0/8 . 0.0.0.0/0 . tcp . 1", "10.1.0.0/16 . 127.0.0.1 . tcp . 1", True),
        ("fd00::/8 . tcp . 1", "fe00::1 . tcp . 1", False),
        ("tcp . 1", "tcp", False),
        ("10.0.0.1 . 7 . 0xfd00-0xfdff", "10.0.0.1 . 7 . 0xfd80", True),
        ("10.0.0.1 . 7 . 0xfd00-0xfdff", "10.0.0.1 . 7 . 0xfe00", False),
    ],
)
def test_intervals_overlap_if_all_their_parts_do(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


def test_a_family_that_the_container_does_not_have_is_not_published() -> None:
    assert publish.elements(an_endpoint("10.0.0.2", publish=("[fd00::9]:4000:80",))) == {
        "hairpin4": {"10.0.0.2 . 10.0.0.2"}
    }


def test_without_ports_there_is_nothing_to_publish() -> None:
    assert publish.elements(an_endpoint("10.0.0.2", "fd00::2")) == {}


def test_every_published_element_has_its_set() -> None:
    ports = ("1:1", "127.0.0.1:2:2", "[fd00::9]:3:3/udp", "4:4/sctp@10.9.0.0/16,fd09::/16")
    ranges = ("5-6:5-6", "127.0.0.1:7-8:7-8", "[fd00::9]:7-8:7-8")
    endpoint = an_endpoint("10.0.0.2", "fd00::2", publish=(*ports, *ranges))
    assert set(publish.elements(endpoint)) == {declared.name for declared in publish.SETS}


def test_a_network_has_paths_to_itself_and_to_its_tunnel_and_nowhere_else() -> None:
    assert isolate.elements("nab1", "nav1", internal=False) == {
        "inside": {"nab1", "nav1"},
        "tunnels": {"nav1"},
        "internal": set(),
        "separate": set(),
        "paths": {"nab1 . nab1", "nab1 . nav1", "nav1 . nab1"},
    }
    assert isolate.elements("nab1", None, internal=True) == {
        "inside": {"nab1"},
        "tunnels": set(),
        "internal": {"nab1"},
        "separate": set(),
        "paths": {"nab1 . nab1"},
    }


def test_what_leaves_a_network_is_masqueraded_unless_it_is_internal() -> None:
    network = a_local_network("10.0.0.0/24", "fd00::/64")
    assert masquerade.elements(network) == {"masquerade4": {"10.0.0.0/24"}, "masquerade6": {"fd00::/64"}}
    assert masquerade.elements(replace(network, internal=True)) == {}
    assert masquerade.elements(an_overlay()) == {"masquerade4": {"192.168.0.0/16"}, "masquerade6": set()}


def test_elements_of_many_are_joined_set_by_set_without_empty_ones() -> None:
    merged = merge([{"a": frozenset("1"), "b": frozenset()}, {"a": frozenset("2"), "c": frozenset("3")}])
    assert dict(merged) == {"a": {"1", "2"}, "c": {"3"}}


def test_sets_and_chains_are_the_same_whatever_is_in_them() -> None:
    empty, full = render_ruleset([]), render_ruleset([{"inside": frozenset({"nab1"})}])
    assert (empty.sets, empty.chains) == (full.sets, full.chains) == (SETS, CHAINS)
    assert dict(full.elements) == {"inside": {"nab1"}}


def table_of(name: str) -> str:
    """Return the part of a chain's name that says which table it is in, which its sets share."""
    return name[: name.find("/") + 1]


def test_every_set_that_a_rule_names_is_declared_once() -> None:
    declared = [each.name for each in SETS]
    named = {
        table_of(chain.name) + word.removeprefix("@")
        for chain in CHAINS
        for rule in chain.rules
        for word in rule.split()
        # "@th,96,24" is a raw expression: an offset and a length in the packet.
        if word[0] == "@" and "," not in word
    }
    assert len(set(declared)) == len(declared)
    assert named <= set(declared)
    assert named == set(declared)


def test_every_chain_that_a_rule_jumps_to_exists() -> None:
    names = {chain.name for chain in CHAINS}
    jumps = {rule.split(" jump ")[1] for chain in CHAINS for rule in chain.rules if " jump " in rule}
    assert jumps
    assert jumps <= names


def test_no_chain_of_ours_drops_what_it_does_not_know() -> None:
    assert all("policy accept" in chain.hook for chain in CHAINS if chain.hook)


def test_loopback_is_guarded_before_anything_is_translated_and_where_packets_are_delivered_and_forwarded() -> None:
    chains = {chain.name: chain for chain in CHAINS}
    assert chains["guard"].rules == ('ip daddr 127.0.0.0/8 iifname != "lo" drop',)
    translating = [chain for chain in CHAINS if chain.hook and "nat hook prerouting" in chain.hook]
    priorities = {chain.name: chain.hook.split("priority ")[1].split(";")[0] for chain in translating if chain.hook}
    assert priorities == {"guard": "-102", "resolve": "-101", "prerouting": "dstnat"}
    for name in ("input", "forward"):
        assert 'ip saddr 127.0.0.0/8 iifname != "lo" drop' in chains[name].rules
    assert 'ip daddr 127.0.0.0/8 iifname != "lo" ct state invalid,new,untracked drop' in chains["input"].rules


def test_traffic_that_only_passes_through_is_never_looked_up() -> None:
    entries = [chain for chain in CHAINS if any("jump publish" in rule for rule in chain.rules)]
    assert {chain.name for chain in entries} == {"prerouting", "output"}
    assert all(chain.rules == ("fib daddr type local jump publish",) for chain in entries)


def test_what_enters_a_network_uninvited_is_dropped_last() -> None:
    forward = next(chain for chain in CHAINS if chain.name == "forward")
    order = [
        forward.rules.index(rule)
        for rule in (
            "iifname . oifname @paths accept",
            "ct state established,related accept",
            "oifname @inside ct status dnat accept",
            "oifname @inside drop",
        )
    ]
    assert order == sorted(order)
    assert forward.rules.index("oifname @internal drop") < order[1]


def test_a_lane_comes_before_all_rules_and_drops_nothing() -> None:
    chains = {chain.name: chain.rules for chain in CHAINS}
    assert chains["forward"][:2] == ("ct status dnat jump count", "iifname . oifname vmap @lanes")
    for lane in lanes.CHAINS:
        assert lane.hook is None
        assert {rule.rpartition(" ")[2] for rule in lane.rules} <= {"accept", "return", "shared_to_way"}


def test_what_a_lane_leaves_out_is_checked_elsewhere() -> None:
    """A tunnel's packets before they are unpacked, a container's where it is plugged into a bridge of ours."""
    assert lanes.tunnel_elements("nab1", "nav1") == {"lanes": {"nab1 . nav1 : accept", "nav1 . nab1 : accept"}}
    assert lanes.tunnel_elements("kbr0", "nao1", is_shared=True) == {
        "lanes": {"kbr0 . nao1 : jump to_tunnel", "nao1 . kbr0 : accept"}
    }
    assert lanes.way_elements("nab1", ["eth0"]) == {
        "lanes": {"nab1 . eth0 : jump to_way", "eth0 . nab1 : jump from_way"}
    }
    assert lanes.way_elements("kbr0", ["eth0"], is_shared=True) == {
        "lanes": {"kbr0 . eth0 : jump shared_to_way", "eth0 . kbr0 : jump from_way"}
    }
    sources = [rule for chain in lanes.CHAINS if chain.name == "to_way" for rule in chain.rules if "saddr" in rule]
    assert not sources


def test_blocks_of_the_usual_length_are_near_a_networks_bridge_and_others_are_not() -> None:
    prefixes = [parse_prefix(text) for text in ("10.1.2.0/24", "10.1.0.7/32", "fd00:0:0:0:5::/80", "fd00::/112")]
    found = routed.elements(prefixes, "nab1", ["nav1"])
    assert (found["near4"], found["near6"]) == ({"nab1 . 10.1.2.0"}, {"nab1 . fd00::5:0:0:0"})
    assert found["remote4"] == {f"{text} . {name}" for text in ("10.1.2.0/24", "10.1.0.7") for name in ("nab1", "nav1")}


@pytest.mark.parametrize("set_name", ["blocks44", "greblocks44", "blocks66", "greblocks66"])
def test_a_block_is_known_by_its_leading_octets_as_it_would_be_by_the_interval_of_its_addresses(set_name: str) -> None:
    end, first, last = {
        "4": ("198.18.0.2", "3232236032", "3232236287"),
        "6": ("2001:db8::7", "0xfd000007000000000005000000000000", "0xfd000007000000000005ffffffffffff"),
    }[set_name[-1]]
    number = 4097 if set_name.startswith("gre") else 4097 << 8
    leading = {"4": "49320 . 2", "6": "0xfd000007000000000005"}[set_name[-1]]
    assert tunnel.as_behind(set_name, f"{end} . {number} . {leading}") == f"{end} . 4097 . {first}-{last}"


def test_exempted_destinations_and_a_chosen_address_are_elements_for_each_subnet() -> None:
    network = replace(
        a_local_network("10.0.0.0/24", "fd00::/64"),
        masquerade_except=parse_exemptions("192.0.2.0/25,192.0.2.128/25,203.0.113.7/32,2001:db8::/32"),
        outbound=parse_outbound(["198.18.0.9"]),
    )
    assert masquerade.elements(network) == {
        "masquerade4": {"10.0.0.0/24"},
        "masquerade6": {"fd00::/64"},
        "kept4": {"10.0.0.0/24 . 192.0.2.0/24", "10.0.0.0/24 . 203.0.113.7"},
        "kept6": {"fd00::/64 . 2001:db8::/32"},
        "outbound4": {"10.0.0.0/24 : 198.18.0.9"},
    }
    assert masquerade.elements(replace(network, masquerade=False)) == {}


def test_the_containers_ports_of_published_elements_are_found_for_their_counters() -> None:
    assert set(ports_in("publish4", ["tcp . 4000 : 10.0.0.2 . 80", "tcp . 4001"])) == {
        (ip_address("10.0.0.2"), "tcp", 80)
    }
    assert set(ports_in("ranges6_at", ["fd00::9 . udp . 90-91 : fd00::2"])) == {
        (ip_address("fd00::2"), "udp", port) for port in (90, 91)
    }
    assert not set(ports_in("hairpin4", ["10.0.0.2 . 10.0.0.2"]))
