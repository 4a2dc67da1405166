"""Both tables put together from the promises, one file each."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from netagent.firewall import (
    apart,
    counting,
    direct,
    isolate,
    lanes,
    linked,
    masquerade,
    publish,
    redirect,
    resolve,
    routed,
    spoof,
    tunnel,
)
from netagent.plan.desired import Ruleset

SETS = (
    *isolate.SETS,
    *lanes.SETS,
    *linked.SETS,
    *direct.SETS,
    *masquerade.SETS,
    *publish.SETS,
    *resolve.SETS,
    *routed.SETS,
    *tunnel.SETS,
    *spoof.SETS,
    *apart.SETS,
    *counting.SETS,
)
CHAINS = (
    *resolve.CHAINS,
    *publish.CHAINS,
    *masquerade.CHAINS,
    *counting.CHAINS,
    *lanes.CHAINS,
    *isolate.CHAINS,
    *redirect.CHAINS,
    *tunnel.CHAINS,
    *spoof.CHAINS,
    *apart.CHAINS,
)
INTERVAL_SETS = frozenset(declared.name for declared in SETS if "interval" in declared.flags)
"""Sets in which an element is in the way of every other one that overlaps it."""


def merge(groups: Iterable[Mapping[str, frozenset[str]]]) -> Mapping[str, frozenset[str]]:
    """Return the union of several groups of elements, set by set, without empty ones."""
    merged: dict[str, set[str]] = {}
    for group in groups:
        for name, elements in group.items():
            if elements:
                merged.setdefault(name, set()).update(elements)
    return MappingProxyType({name: frozenset(elements) for name, elements in merged.items()})


def render_ruleset(groups: Iterable[Mapping[str, frozenset[str]]]) -> Ruleset:
    """Return the tables with these elements in their sets."""
    return Ruleset(sets=SETS, chains=CHAINS, elements=merge(groups))
