"""The tables of ours: replaced whole, observed, its elements added and deleted; nft itself is the witness."""

import json
from types import MappingProxyType

import pytest

from netagent.errors import KernelRejected
from netagent.firewall.ruleset import CHAINS, SETS
from netagent.kernel.kernel import Kernel
from netagent.kernel.nftables import Nftables
from netagent.plan.desired import Chain, ElementSet, Ruleset, State
from netagent.plan.diff import diff
from netagent.plan.operation import AddElements, DeleteElements, Plan, ReplaceRuleset
from tests.support.netns import Namespace

pytestmark = pytest.mark.kernel

SAMPLES = (
    ElementSet(name="ports", key="inet_proto . inet_service", data="ipv4_addr . inet_service"),
    ElementSet(name="ports6", key="ipv6_addr . inet_proto . inet_service", data="ipv6_addr . inet_service"),
    ElementSet(name="pairs", key="ifname . ifname"),
    ElementSet(name="inside", key="ifname"),
    ElementSet(name="subnets", key="ipv4_addr", flags=("interval",)),
    ElementSet(name="subnets6", key="ipv6_addr", flags=("interval",)),
    ElementSet(name="sources", key="ipv4_addr . inet_service", flags=("interval",)),
    ElementSet(name="spoof", key="ifname . ipv4_addr . ether_addr"),
    ElementSet(name="verdicts", key="ifname", data="verdict"),
    ElementSet(name="behind", key="typeof ip saddr . @th,96,24 . @th,336,32", flags=("interval",)),
    ElementSet(name="behind6", key="typeof ip saddr . @th,96,24 . @th,304,128", flags=("interval",)),
    ElementSet(name="vnis", key="typeof @th,96,24"),
    ElementSet(name="bridge/inside", key="ifname . ether_addr"),
    ElementSet(name="bridge/targets", key="typeof iifname . @th,64,128"),
)
RULES = (
    Chain(name="forward", hook="type filter hook forward priority filter; policy accept;", rules=("jump more",)),
    Chain(name="more", rules=("iifname . oifname @pairs accept", "ct state established accept")),
    Chain(name="bridge/more", rules=("iifname . @th,64,128 @targets drop",)),
)
ELEMENTS = {
    "ports": frozenset({"tcp . 4000 : 10.0.0.2 . 80", "udp . 53 : 10.0.0.3 . 5353", "sctp . 7 : 10.0.0.3 . 7"}),
    "ports6": frozenset({"2001:db8::1 . tcp . 80 : fd00::2 . 8080"}),
    "pairs": frozenset({"nab1 . nab2", "nab0123456789ab . nav0123456789ab"}),
    "inside": frozenset({"nab1", "nabfedcba987654"}),
    "subnets": frozenset({"10.1.0.0/16", "10.2.0.1", "10.3.0.1-10.3.0.9"}),
    "subnets6": frozenset({"fd00:9::/64"}),
    "sources": frozenset({"10.1.0.0/16 . 80", "10.0.0.0/8 . 90-100"}),
    "spoof": frozenset({"nae1 . 10.0.0.2 . 02:00:00:00:00:01"}),
    "verdicts": frozenset({"nae1 : jump more", "nae2 : drop", "nae3 : goto more", "nae4 : accept"}),
    "vnis": frozenset({"4097"}),
    "behind": frozenset({"198.18.0.2 . 4097 . 3232236032-3232236287", "198.18.0.2 . 4097 . 3232240000"}),
    "behind6": frozenset(
        {
            "198.18.0.2 . 4097 . 0xfd000009000000000000000000000000-0xfd00000900000000000000000000ffff",
            "198.18.0.2 . 4097 . 0xfd000009000000000000000000010000-0xfd00000900000000000000000001ffff",
        }
    ),
    "bridge/inside": frozenset({"nae1 . 02:00:00:00:00:01"}),
    "bridge/targets": frozenset({"nae1 . 0xfd000009000000000000000000000002"}),
}


def ruleset(elements: dict[str, frozenset[str]] | None = None) -> Ruleset:
    """Return the sample table with ``elements``."""
    return Ruleset(sets=SAMPLES, chains=RULES, elements=MappingProxyType(elements or {}))


def state(content: Ruleset | None) -> State:
    """Return a state that is a table only."""
    return State(ruleset=content)


async def test_a_table_is_observed_as_it_was_put(kernel: Kernel) -> None:
    desired = state(ruleset(ELEMENTS))
    assert (await kernel.observe(desired)).ruleset is None
    await kernel.apply(diff(desired, State()))
    assert await kernel.observe(desired) == desired


async def test_the_programs_own_rules_are_accepted(kernel: Kernel) -> None:
    desired = state(Ruleset(sets=SETS, chains=CHAINS))
    await kernel.apply(diff(desired, State()))
    assert await kernel.observe(desired) == desired


@pytest.mark.parametrize("name", ELEMENTS)
async def test_elements_come_and_go_in_their_own_spelling(kernel: Kernel, name: str) -> None:
    empty, full = state(ruleset()), state(ruleset({name: ELEMENTS[name]}))
    await kernel.apply(diff(empty, State()))
    addition = diff(full, await kernel.observe(full))
    assert [type(o) for o in addition.operations] == [AddElements]
    await kernel.apply(addition)
    await kernel.apply(addition)
    assert await kernel.observe(full) == full
    removal = diff(empty, full)
    await kernel.apply(removal)
    await kernel.apply(removal)
    assert await kernel.observe(empty) == empty


BY_LIBRARY = frozenset({"subnets", "subnets6"})
"""Intervals of a single value."""


@pytest.mark.parametrize("name", ELEMENTS)
async def test_elements_of_raw_netlink_are_those_that_nft_would_make(
    kernel: Kernel, host: Namespace, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    empty, full = state(ruleset()), state(ruleset({name: ELEMENTS[name]}))
    await kernel.apply(diff(full, State()))
    by_library = _listed(host)
    await kernel.apply(Plan((ReplaceRuleset(ruleset()),)))
    without = _listed(host)
    calls: list[str] = []
    run = Nftables.run
    monkeypatch.setattr(Nftables, "run", lambda self, script, **options: calls.append(script) or run(self, script))
    await kernel.apply(diff(full, empty))
    assert _listed(host) == by_library != without
    await kernel.apply(diff(empty, full))
    assert _listed(host) == without
    assert bool(calls) == (name in BY_LIBRARY)


def _listed(host: Namespace) -> str:
    """Return the ruleset as nft shows it, elements in order: a hash has none."""

    def ordered(value: object) -> object:
        if isinstance(value, dict):
            kept = {key: ordered(part) for key, part in value.items() if key != "handle"}
            return kept | {"elem": sorted(map(repr, kept["elem"]))} if isinstance(kept.get("elem"), list) else kept
        return [ordered(part) for part in value] if isinstance(value, list) else value

    return repr(ordered(json.loads(host.run("nft", "-j", "list", "ruleset"))["nftables"][1:]))


async def test_a_map_element_gets_other_data(kernel: Kernel) -> None:
    old = state(ruleset({"ports": frozenset({"tcp . 4000 : 10.0.0.2 . 80"})}))
    new = state(ruleset({"ports": frozenset({"tcp . 4000 : 10.0.0.9 . 80"})}))
    await kernel.apply(diff(old, State()))
    with pytest.raises(KernelRejected) as caught:
        await kernel.apply(Plan((AddElements("ports", ("tcp . 4000 : 10.0.0.9 . 80",)),)))
    assert caught.value.errno == 17
    await kernel.apply(diff(new, old))
    assert await kernel.observe(new) == new


async def test_deleting_finds_what_is_left_of_a_batch(kernel: Kernel) -> None:
    await kernel.apply(diff(state(ruleset(ELEMENTS)), State()))
    await kernel.apply(Plan((DeleteElements("inside", ("nab1",)),)))
    await kernel.apply(
        Plan((DeleteElements("inside", ("nab1", "nabfedcba987654")), DeleteElements("pairs", ("nab1 . nab2",))))
    )
    left = (await kernel.observe(state(ruleset()))).ruleset
    assert left is not None
    assert "inside" not in left.elements
    assert left.elements["pairs"] == {"nab0123456789ab . nav0123456789ab"}


async def test_the_refused_one_of_several_is_named_and_the_table_is_unchanged(kernel: Kernel) -> None:
    before = state(ruleset({"ports": frozenset({"tcp . 4000 : 10.0.0.2 . 80"})}))
    await kernel.apply(diff(before, State()))
    with pytest.raises(KernelRejected, match="ports") as caught:
        await kernel.apply(Plan((AddElements("ports", ("tcp . 4000 : 10.0.0.9 . 80",)), AddElements("nosuch", ()))))
    assert caught.value.errno == 17
    assert await kernel.observe(before) == before


async def test_without_a_table_adding_is_refused_and_deleting_done(kernel: Kernel) -> None:
    with pytest.raises(KernelRejected) as caught:
        await kernel.apply(Plan((AddElements("inside", ("nab1",)),)))
    assert caught.value.errno == 2
    await kernel.apply(Plan((DeleteElements("inside", ("nab1",)),)))


@pytest.mark.parametrize(
    "damage",
    [
        "flush chain inet netagent more",
        "add rule inet netagent more drop",
        "add chain inet netagent extra",
        "add set inet netagent extra { type ipv4_addr; }",
        "flush chain bridge netagent more",
        "delete table bridge netagent",
        "delete table inet netagent",
        "flush ruleset",
    ],
)
async def test_a_changed_table_is_noticed_and_put_right(kernel: Kernel, host: Namespace, damage: str) -> None:
    desired = state(ruleset(ELEMENTS))
    await kernel.apply(diff(desired, State()))
    host.run("nft", damage)
    plan = diff(desired, await kernel.observe(desired))
    assert [type(o) for o in plan.operations] == [ReplaceRuleset]
    await kernel.apply(plan)
    assert await kernel.observe(desired) == desired


async def test_another_versions_table_is_replaced(kernel: Kernel) -> None:
    """Same names and as many rules, but one rule says something else."""
    older = Ruleset(sets=SAMPLES, chains=(*RULES[:1], Chain(name="more", rules=("drop", "accept"))))
    await kernel.apply(diff(state(older), State()))
    desired = state(ruleset())
    assert diff(desired, await kernel.observe(desired))


async def test_a_refused_table_leaves_the_old_one(kernel: Kernel) -> None:
    before = state(ruleset(ELEMENTS))
    await kernel.apply(diff(before, State()))
    wrong = Ruleset(chains=(Chain(name="c", rules=("jump nonsense",)),))
    with pytest.raises(KernelRejected, match="No such file"):
        await kernel.apply(Plan((ReplaceRuleset(wrong),)))
    assert await kernel.observe(before) == before


async def test_other_tables_are_not_touched(kernel: Kernel, host: Namespace) -> None:
    host.run("nft", "add table inet other { chain netagent { counter; }; }; add table ip netagent")
    await kernel.apply(diff(state(ruleset(ELEMENTS)), State()))
    host.run("nft", "delete table inet netagent")
    listed = host.run("nft", "list ruleset")
    assert "chain netagent" in listed
    assert "table ip netagent" in listed


async def test_an_endpoints_elements_are_observed_by_key(kernel: Kernel) -> None:
    await kernel.apply(diff(state(ruleset(ELEMENTS)), State()))
    wanted = state(Ruleset(elements=MappingProxyType({"ports": frozenset({"tcp . 4000 : 10.0.0.9 . 80"})})))
    observed = (await kernel.observe_endpoint(wanted)).ruleset
    assert observed == Ruleset(elements=MappingProxyType({"ports": frozenset({"tcp . 4000 : 10.0.0.2 . 80"})}))


async def test_five_thousand_elements_go_in_one_transaction(kernel: Kernel) -> None:
    many = frozenset(f"tcp . {port} : 10.0.0.2 . {port}" for port in range(10000, 15000))
    desired = state(ruleset({"ports": many}))
    await kernel.apply(diff(desired, State()))
    assert await kernel.observe(desired) == desired
