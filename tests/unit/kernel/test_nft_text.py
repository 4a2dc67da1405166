"""The scripts for nft, and its listings back into text, without a kernel."""

from types import MappingProxyType

import pytest

from netagent.kernel.nftables import _element_text, render_script, structure_hash
from netagent.plan.desired import Chain, ElementSet, Ruleset

RULESET = Ruleset(
    sets=(
        ElementSet(name="subnets", key="ipv4_addr", flags=("interval",)),
        ElementSet(name="publish", key="inet_proto . inet_service", data="ipv4_addr . inet_service"),
    ),
    chains=(
        Chain(name="forward", hook="type filter hook forward priority filter; policy accept;", rules=("accept",)),
        Chain(name="empty", rules=()),
    ),
    elements=MappingProxyType({"subnets": frozenset({"10.2.0.0/16", "10.1.0.0/16"}), "publish": frozenset()}),
)


def test_the_script_replaces_the_table_in_one_transaction() -> None:
    assert render_script(RULESET) == (
        "add table inet netagent\n"
        "delete table inet netagent\n"
        "add table bridge netagent\n"
        "delete table bridge netagent\n"
        "table inet netagent {\n"
        f'comment "structure {structure_hash(RULESET)}"\n'
        "set subnets { type ipv4_addr; flags interval; }\n"
        "map publish { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"
        "chain forward {\n"
        "type filter hook forward priority filter; policy accept;\n"
        "accept\n"
        "}\n"
        "chain empty {\n"
        "}\n"
        "}\n"
        "add element inet netagent subnets { 10.1.0.0/16, 10.2.0.0/16 }\n"
    )


def test_the_hash_is_of_the_structure_alone() -> None:
    without = Ruleset(sets=RULESET.sets, chains=RULESET.chains)
    assert structure_hash(without) == structure_hash(RULESET)
    assert structure_hash(Ruleset(sets=RULESET.sets)) != structure_hash(RULESET)


@pytest.mark.parametrize(
    ("listed", "is_map", "text"),
    [
        ("nab1", False, "nab1"),
        (80, False, "80"),
        ({"prefix": {"addr": "10.1.0.0", "len": 16}}, False, "10.1.0.0/16"),
        ({"range": [90, 100]}, False, "90-100"),
        ({"concat": ["nab1", "nab2"]}, False, "nab1 . nab2"),
        ({"elem": {"val": "10.0.0.1", "counter": {"packets": 1, "bytes": 2}}}, False, "10.0.0.1"),
        ([{"concat": ["tcp", 80]}, {"concat": ["10.0.0.2", 8080]}], True, "tcp . 80 : 10.0.0.2 . 8080"),
        ([{"elem": {"val": "nab1", "comment": "x"}}, {"drop": None}], True, "nab1 : drop"),
        (["nab1", {"jump": {"target": "more"}}], True, "nab1 : jump more"),
        (["nab1", {"goto": {"target": "more"}}], True, "nab1 : goto more"),
    ],
)
def test_listed_elements_have_one_spelling(listed: object, is_map: bool, text: str) -> None:
    assert _element_text(listed, is_map=is_map) == text
