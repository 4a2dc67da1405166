"""The checker of histories itself: it must find what the faults could do, and nothing else."""

from itertools import permutations

import pytest

from tests.support.history import NEVER, History, Span, overlaps


def span(since: float, until: float = NEVER, *, holder: str = "a", address: str = "10.0.0.2") -> Span:
    return Span(address=address, host="h1", holder=holder, since=since, until=until)


@pytest.mark.parametrize(
    "clean",
    [
        [],
        [span(1, 2), span(2, 3, holder="b"), span(3, holder="c")],
        [span(1), span(1, address="10.0.0.3")],
    ],
    ids=["nothing", "one after the other", "different addresses"],
)
def test_no_overlap_is_found_where_there_is_none(clean: list[Span]) -> None:
    assert all(overlaps(order) == [] for order in permutations(clean))


@pytest.mark.parametrize(
    ("doubled", "number"),
    [
        ([span(1, 3), span(2, 4, holder="b")], 1),
        ([span(1), span(5, 6, holder="b")], 1),
        ([span(1, 9), span(2, 3, holder="b"), span(4, 5, holder="c")], 2),
    ],
    ids=["partly", "one never gave back", "two within one"],
)
def test_every_overlap_is_found_in_whatever_order_it_was_written(doubled: list[Span], number: int) -> None:
    assert all(len(overlaps(order)) == number for order in permutations(doubled))


def test_a_power_cut_ends_what_a_host_had_and_voids_what_it_answers_late() -> None:
    history = History()
    boot = history.boot("h1")
    assert history.take("10.0.0.2", "h1", "a", boot=boot)
    assert history.take("10.0.0.3", "h2", "b", boot=history.boot("h2"))
    history.cut_power("h1")
    assert not history.take("10.0.0.4", "h1", "c", boot=boot)
    assert [span.holder for span in history.present] == ["b"]
    assert history.take("10.0.0.2", "h1", "d", boot=history.boot("h1"))
    assert overlaps(history.spans) == []
