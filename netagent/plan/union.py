"""Several parts of a state as one."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

from netagent.firewall.ruleset import merge
from netagent.plan.desired import Ruleset, State

_K = TypeVar("_K")
_V = TypeVar("_V")


def union(parts: Iterable[State]) -> State:
    """Return one state that holds everything of ``parts``."""
    states = tuple(parts)
    return State(
        links=_merged(state.links for state in states),
        addresses=frozenset().union(*(state.addresses for state in states)),
        routes=frozenset().union(*(state.routes for state in states)),
        neighbours=frozenset().union(*(state.neighbours for state in states)),
        fdb=frozenset().union(*(state.fdb for state in states)),
        tunnel_sources=frozenset().union(*(state.tunnel_sources for state in states)),
        shapers=frozenset().union(*(state.shapers for state in states)),
        redirects=frozenset().union(*(state.redirects for state in states)),
        announcements=frozenset().union(*(state.announcements for state in states)),
        source_routes=frozenset().union(*(state.source_routes for state in states)),
        sysctls=_merged(state.sysctls for state in states),
        ruleset=Ruleset(elements=merge(state.ruleset.elements for state in states if state.ruleset)),
    )


def _merged(mappings: Iterable[Mapping[_K, _V]]) -> Mapping[_K, _V]:
    return MappingProxyType({key: value for mapping in mappings for key, value in mapping.items()})
