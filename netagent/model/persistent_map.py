"""A mapping and a set that never change: one that is made of another shares with it all but what is different.

Its entries are spread over shards by their hash, and only a shard with a change in it is copied. So among thousands a
change costs copies of some dozens in C, and what two of them differ in is found by looking at the shards that they do
not share. It is a hash array mapped trie (Bagwell, Ideal Hash Trees, 2001) of a single level.
"""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Set, ValuesView
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

_SHARDS = 256
_NOTHING: Mapping[Any, Any] = MappingProxyType({})
_EMPTY: dict[Any, Any] = {}
_ABSENT = object()


@dataclass(frozen=True, slots=True, eq=False)
class PersistentMap(Mapping[_K, _V]):
    """Its order is that of the shards, which says nothing."""

    shards: tuple[dict[_K, _V], ...] = (_EMPTY,) * _SHARDS
    _count: int = 0

    def updated(self, put: Mapping[_K, _V] = _NOTHING, gone: Iterable[_K] = ()) -> "PersistentMap[_K, _V]":
        """Return this without the entries under ``gone``, absent ones too, and then with those of ``put``."""
        shards = list(self.shards)
        count = self._count
        for key in gone:
            if key in (shard := self._own(shards, key)):
                del shard[key]
                count -= 1
        for key, value in put.items():
            shard = self._own(shards, key)
            count += key not in shard
            shard[key] = value
        return PersistentMap(tuple(shards), count)

    def _own(self, shards: list[dict[_K, _V]], key: _K) -> dict[_K, _V]:
        """Return the shard for ``key`` out of ``shards``, where a copy takes the place of this map's."""
        number = hash(key) % _SHARDS
        if shards[number] is self.shards[number]:
            shards[number] = self.shards[number].copy()
        return shards[number]

    def changed_keys(self, other: "PersistentMap[_K, _V]") -> set[_K]:
        """Return the keys under which the ``other`` has something else, or either has nothing."""
        found: set[_K] = set()
        for mine, theirs in zip(self.shards, other.shards, strict=True):
            if mine is not theirs:
                found.update(key for key, value in mine.items() if _differ(value, theirs.get(key, _ABSENT)))
                found.update(theirs.keys() - mine.keys())
        return found

    def __getitem__(self, key: _K) -> _V:
        return self.shards[hash(key) % _SHARDS][key]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[_K]:
        return chain.from_iterable(self.shards)

    def __eq__(self, other: object) -> bool:
        # A dict is not compared with itself.
        return self.shards == other.shards if isinstance(other, PersistentMap) else Mapping.__eq__(self, other)

    __hash__ = None  # type: ignore[assignment]

    # Those of Mapping ask for each value by its key.

    def values(self) -> ValuesView[_V]:
        return _Values(self)

    def items(self) -> ItemsView[_K, _V]:
        return _Items(self)


class _Values(ValuesView[_V]):
    _mapping: PersistentMap[Any, _V]

    def __iter__(self) -> Iterator[_V]:
        return chain.from_iterable(shard.values() for shard in self._mapping.shards)


class _Items(ItemsView[_K, _V]):
    _mapping: PersistentMap[_K, _V]

    def __iter__(self) -> Iterator[tuple[_K, _V]]:
        return chain.from_iterable(shard.items() for shard in self._mapping.shards)


@dataclass(frozen=True, slots=True, eq=False)
class PersistentSet(Set[_K]):
    """A set of the same kind; what is made of it by operators is a ``frozenset``."""

    members: PersistentMap[_K, None] = field(default_factory=PersistentMap)

    def updated(self, put: Iterable[_K] = (), gone: Iterable[_K] = ()) -> "PersistentSet[_K]":
        """Return this without ``gone``, absent ones too, and then with ``put``."""
        return PersistentSet(self.members.updated(dict.fromkeys(put), gone))

    def joined(self, other: "PersistentSet[_K]") -> "PersistentSet[_K]":
        """Return what is in this or in the ``other``."""
        smaller, larger = sorted((self, other), key=len)
        return larger.updated(smaller) if smaller else larger

    def changed(self, other: "PersistentSet[_K]") -> set[_K]:
        """Return what is in one of this and the ``other`` alone."""
        return self.members.changed_keys(other.members)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:
        return frozenset(it)

    def __contains__(self, member: object) -> bool:
        return member in self.members

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[_K]:
        return iter(self.members)


def _differ(one: object, other: object) -> bool:
    return one is not other and one != other
