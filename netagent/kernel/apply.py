"""Carries plans out: consecutive operations of one class in one namespace go to the kernel as one batch."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from netagent import failpoint
from netagent.errors import NetagentError, NotFound
from netagent.kernel import announce, conntrack, limits, links, nftables, ovs, reaper, routes, source_routes
from netagent.kernel.advertisements import FORWARDING6, keep_learnt_routes
from netagent.kernel.firewall import Firewall
from netagent.kernel.netns import Namespace
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.sandboxes import Sandboxes
from netagent.kernel.sysctl import write_sysctl
from netagent.plan.desired import HOST
from netagent.plan.operation import (
    AddAddress,
    AddAdminChains,
    AddElements,
    AddFdb,
    AddLink,
    AddNeighbour,
    AddRoute,
    AddSourceRoute,
    AddTunnelSource,
    Announce,
    DeleteAddress,
    DeleteElements,
    DeleteFdb,
    DeleteLink,
    DeleteNeighbour,
    DeleteRedirect,
    DeleteRoute,
    DeleteShaper,
    DeleteSourceRoute,
    DeleteTunnelSource,
    FlushAddress,
    FlushPort,
    Operation,
    Phase,
    Plan,
    ReplaceRuleset,
    SetLink,
    SetRedirect,
    SetShaper,
    SetSysctl,
)

_log = logging.getLogger("netagent.kernel")

_LINKS_AT_ONCE = 32
"""Links in one batch; below the number of sandboxes that are open at once, each of which a veth's request names."""


@dataclass(slots=True)
class Workplace:
    """What the worker thread works with: its namespace, what speaks to the kernel there, and whom to wake.

    ``nft`` also reads other people's tables, whatever our own firewall is.
    """

    home: Namespace
    rtnl: Rtnl
    firewall: Firewall
    nft: nftables.Nftables
    reaper: reaper.Reaper
    flusher: conntrack.Flusher
    announcer: announce.Announcer


@dataclass(slots=True)
class _Pass:
    """One plan being carried out."""

    place: Workplace
    sandboxes: Sandboxes

    def rtnl(self, where: str) -> Rtnl:
        return self.place.rtnl if where == HOST else self.sandboxes.open(where).rtnl


def apply(place: Workplace, plan: Plan, *, carry_on: bool = False) -> None:
    """Carry out ``plan`` in order; raise at the first refusal, with what came before it done.

    With ``carry_on`` what can be done after a refusal is done as well, and the first refusal is raised at the end.
    Operations of the refused one's batch may be done, also some after it: the kernel takes a batch message by
    message. Carrying the plan out again, or observing, settles it.
    """
    place.rtnl.forget()
    refusals: list[NetagentError] = []
    with Sandboxes(place.home) as sandboxes:
        work = _Pass(place, sandboxes)
        is_unguarded = False
        for batch in batches(plan.operations):
            if is_unguarded and Phase.ADD_ELEMENTS < batch[0].phase <= Phase.ADD_ROUTES:
                continue
            for operation in batch:
                _log.debug("%s", operation)
            name = type(batch[0]).__name__
            failpoint.reach(f"kernel.{name}.before")
            try:
                _HANDLERS[type(batch[0])](work, batch)
            except NetagentError as refusal:
                if not carry_on:
                    raise
                _log.warning("%s", refusal)
                refusals.append(refusal)
                # Without the rules that go in first nothing may come up: it would be open.
                is_unguarded |= batch[0].phase <= Phase.ADD_ELEMENTS
            failpoint.reach(f"kernel.{name}.after")
    if refusals:
        raise refusals[0]


def batches(operations: Sequence[Operation]) -> Iterator[list[Any]]:
    """Yield runs of consecutive operations that one handler takes at once."""
    # The phase counts too: adding a bridge and adding its ports are one class, but the ports need the bridge.
    for _, run in groupby(operations, key=lambda o: (o.phase, type(o), where_of(o))):
        members = list(run)
        size = _LINKS_AT_ONCE if isinstance(members[0], AddLink | SetLink | DeleteLink) else len(members)
        yield from (members[start : start + size] for start in range(0, len(members), size))


def where_of(operation: Operation) -> str:
    """Return the namespace that an operation works in; a veth is made in the host's."""
    match operation:
        case AddAddress(address) | DeleteAddress(address):
            return address.where
        case AddRoute(route) | DeleteRoute(route):
            return route.where
        case AddSourceRoute(route) | DeleteSourceRoute(route):
            return route.where
        case _:
            return HOST


def failpoints() -> tuple[str, ...]:
    """Return the names of all crash points that carrying out plans can reach."""
    per_class = (f"kernel.{kind.__name__}.{side}" for kind in _HANDLERS for side in ("before", "after"))
    return (*per_class, links.UNMARKED, *reaper.FAILPOINTS, *conntrack.FAILPOINTS)


def _replace_ruleset(work: _Pass, batch: Sequence[ReplaceRuleset]) -> None:
    for operation in batch:
        work.place.firewall.replace(operation)


def _add_admin_chains(work: _Pass, batch: Sequence[AddAdminChains]) -> None:
    for operation in batch:
        work.place.firewall.add_admin_chains(operation)


def _delete_links(work: _Pass, batch: Sequence[DeleteLink]) -> None:
    if links.delete_links(work.place.rtnl, work.sandboxes, batch):
        work.place.reaper.wake()


def _set_sysctls(work: _Pass, batch: Sequence[SetSysctl]) -> None:
    for operation in batch:
        if (operation.name, operation.value) == (FORWARDING6, "1"):
            keep_learnt_routes(work.place.rtnl)
        write_sysctl(operation.name, operation.value)


def _delete_inside(
    function: Callable[[Rtnl, Sequence[Any]], None],
) -> Callable[[_Pass, Sequence[Any]], None]:
    """Return a handler for deletions, which a sandbox that is gone has done already."""

    def handle(work: _Pass, batch: Sequence[Any]) -> None:
        try:
            rtnl = work.rtnl(where_of(batch[0]))
        except NotFound:
            return
        function(rtnl, batch)

    return handle


def _add_inside(function: Callable[[Rtnl, Sequence[Any]], None]) -> Callable[[_Pass, Sequence[Any]], None]:
    return lambda work, batch: function(work.rtnl(where_of(batch[0])), batch)


_HANDLERS: dict[type[Operation], Callable[[_Pass, Any], None]] = {
    AddAdminChains: _add_admin_chains,
    ReplaceRuleset: _replace_ruleset,
    AddElements: lambda work, batch: work.place.firewall.add(batch),
    DeleteElements: lambda work, batch: work.place.firewall.delete(batch),
    AddLink: lambda work, batch: links.add_links(work.place.rtnl, work.sandboxes, batch, work.place.firewall.guard),
    SetLink: lambda work, batch: links.set_links(work.place.rtnl, work.sandboxes, batch),
    DeleteLink: _delete_links,
    AddAddress: _add_inside(routes.add_addresses),
    DeleteAddress: _delete_inside(routes.delete_addresses),
    AddNeighbour: _add_inside(routes.add_neighbours),
    DeleteNeighbour: _delete_inside(routes.delete_neighbours),
    AddFdb: _add_inside(routes.add_fdb),
    DeleteFdb: _delete_inside(routes.delete_fdb),
    AddTunnelSource: lambda work, batch: ovs.add_flows(operation.source for operation in batch),
    DeleteTunnelSource: lambda work, batch: ovs.delete_flows(operation.source for operation in batch),
    AddRoute: _add_inside(routes.add_routes),
    DeleteRoute: _delete_inside(routes.delete_routes),
    AddSourceRoute: _add_inside(source_routes.add_source_routes),
    DeleteSourceRoute: _delete_inside(source_routes.delete_source_routes),
    SetSysctl: _set_sysctls,
    SetShaper: lambda work, batch: limits.set_shapers(work.place.rtnl, batch),
    DeleteShaper: lambda work, batch: limits.delete_shapers(work.place.rtnl, batch),
    SetRedirect: lambda work, batch: limits.set_redirects(work.place.rtnl, batch),
    DeleteRedirect: lambda work, batch: limits.delete_redirects(work.place.rtnl, batch),
    FlushPort: lambda work, batch: work.place.flusher.flush(batch, work.place.rtnl),
    FlushAddress: lambda work, batch: work.place.flusher.flush(batch, work.place.rtnl),
    Announce: lambda work, batch: work.place.announcer.announce(batch),
}
