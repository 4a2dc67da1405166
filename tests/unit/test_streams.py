"""How the bench takes turns and what it says of a ratio: in random order, and how sure it is."""

from typing import Any

import pytest

from tests.bench.report import Goal
from tests.bench.streams import in_turns, interval, ratio, said
from tests.bench.way import End, Way

STEADY = [10.0, 10.1, 9.9, 10.0, 10.2, 9.8]
DOUBLE = [2 * sample for sample in STEADY]


def _way(name: str, group: str = "", *, closely: bool = True) -> Way:
    nowhere: Any = None
    end = End(host=nowhere)
    return Way(name=name, client=end, server=end, target="", group=group, closely=closely)


def _names(ways: list[Way], *, turns: int, fewer: int, seed: int) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(turns)]
    for turn, way in in_turns(ways, turns, fewer, seed):
        found[turn].append(way.name)
    return found


def test_ways_of_a_group_are_measured_right_after_one_another_in_another_order_each_time() -> None:
    ways = [_way(f"{group}{number}", group) for group in "ab" for number in range(3)]
    turns = _names(ways, turns=20, fewer=0, seed=7)
    for order in turns:
        assert sorted(order) == sorted(way.name for way in ways)
        assert len({name[0] for name in order[:3]}) == 1
    assert len({tuple(order) for order in turns}) > 10
    assert turns == _names(ways, turns=20, fewer=0, seed=7), "the seed says it all"
    assert turns != _names(ways, turns=20, fewer=0, seed=8)


def test_what_there_is_no_goal_for_takes_fewer_turns() -> None:
    turns = _names([_way("driver"), _way("other", closely=False)], turns=5, fewer=2, seed=1)
    assert [len(order) for order in turns] == [2, 2, 1, 1, 1]


def test_a_way_that_was_taken_out_has_no_turn_any_more() -> None:
    ways = [_way("one"), _way("two")]
    seen = []
    for turn, way in in_turns(ways, 3, 0, 1):
        seen.append((turn, way.name))
        if way.name == "one":
            ways.remove(way)
    assert sorted(seen) == [(0, "one"), (0, "two"), (1, "two"), (2, "two")]


def test_the_interval_is_as_wide_as_the_turns_differ() -> None:
    narrow = interval(STEADY, DOUBLE)
    wide = interval([5.0, 20.0, 9.0, 11.0, 10.0, 10.0], DOUBLE)
    assert narrow is not None
    assert wide is not None
    assert narrow[0] <= ratio(STEADY, DOUBLE) <= narrow[1]
    assert wide[0] < narrow[0]
    assert narrow[1] < wide[1]
    assert interval(STEADY[:4], DOUBLE[:4]) is None


def test_a_table_says_the_interval_where_it_was_measured_closely() -> None:
    samples = {"own": STEADY, "other": DOUBLE, "none": [], "zero": [0.0]}
    assert said(samples, "own", "other").startswith("0.50 (0.50 to 0.50)")
    assert said(samples, "own", "other", closely=False, digits=3) == "0.500"
    assert [said(samples, "own", other) for other in ("none", "zero", "unknown", "")] == [""] * 4


@pytest.mark.parametrize(
    ("value", "between", "verdict"),
    [
        (0.98, (), "met"),
        (0.98, (0.975, 0.99), "met"),
        (0.98, (0.96, 0.99), "met, not for sure"),
        (0.95, (0.93, 0.98), "missed by 0.02, not for sure"),
        (0.95, (0.93, 0.96), "missed by 0.02"),
    ],
)
def test_a_goal_whose_limit_lies_within_the_interval_is_not_sure(
    value: float, between: tuple[float, ...], verdict: str
) -> None:
    assert Goal(text="", value=value, limit=0.97, unit="", least=True, between=between).verdict == verdict


def test_a_goal_says_its_interval() -> None:
    assert Goal(text="", value=0.98, limit=0.97, unit="", between=(0.9612, 0.99)).reached == "0.98 (0.961 to 0.99)"
