"""A mapping of which others are made: each is what a dict would be, and knows what it does not share with another."""

from hypothesis import given
from hypothesis import strategies as st

from netagent.model.persistent_map import PersistentMap, PersistentSet

KEYS = st.integers(0, 600)
"""More than there are shards."""
MAPS = st.dictionaries(KEYS, st.integers(0, 3))


@given(MAPS, MAPS, st.sets(KEYS))
def test_one_that_is_made_of_another_is_what_a_dict_would_be(
    first: dict[int, int], put: dict[int, int], gone: set[int]
) -> None:
    origin = PersistentMap[int, int]().updated(first)
    made = origin.updated(put, gone)
    expected = {**{key: value for key, value in first.items() if key not in gone}, **put}
    assert made == expected
    assert dict(made.items()) == expected
    assert (len(made), sorted(made)) == (len(expected), sorted(expected))
    assert sorted(made.values()) == sorted(expected.values())
    assert all(made[key] == value and key in made for key, value in expected.items())
    assert all(made.get(key) is None for key in gone - put.keys())
    assert origin == first, "it never changes"


@given(MAPS, MAPS, st.sets(KEYS), MAPS)
def test_what_two_differ_in_is_found_whether_they_share_anything_or_not(
    first: dict[int, int], put: dict[int, int], gone: set[int], stranger: dict[int, int]
) -> None:
    origin = PersistentMap[int, int]().updated(first)
    for other in (origin.updated(put, gone), PersistentMap[int, int]().updated(stranger)):
        expected = {key for key in {**origin, **other} if origin.get(key) != other.get(key)}
        assert origin.changed_keys(other) == other.changed_keys(origin) == expected
        assert (origin == other) == (not expected)


@given(st.sets(KEYS), st.sets(KEYS), st.sets(KEYS))
def test_a_set_is_what_a_set_would_be(first: set[int], put: set[int], gone: set[int]) -> None:
    origin = PersistentSet[int]().updated(first)
    made = origin.updated(put, gone)
    assert made == first - gone | put
    assert made.changed(origin) == origin.changed(made) == made ^ first
    assert (origin.joined(made), made.joined(origin)) == (first | made, first | made)
    assert (made | {-1}, made - first, sorted(made), len(made)) == (
        {*made, -1},
        (first - gone | put) - first,
        sorted(first - gone | put),
        len(first - gone | put),
    )


def test_what_a_change_left_as_it_was_is_neither_copied_nor_compared() -> None:
    compared: list[object] = []

    class Value:
        def __eq__(self, other: object) -> bool:
            compared.append(other)
            return self is other

        __hash__ = None  # type: ignore[assignment]

    many = PersistentMap[int, Value]().updated({key: Value() for key in range(5000)})
    other = many.updated({7: Value()}, gone=[8])
    assert sum(shard is not own for shard, own in zip(other.shards, many.shards, strict=True)) == 2
    assert other.changed_keys(many) == {7, 8}
    assert len(compared) == 1
