"""What other hosts change is applied without a look; a look at everything finds nothing left to do."""

from dataclasses import replace

import pytest

from netagent.kernel.kernel import Kernel
from netagent.model.address import parse_address
from netagent.model.paths import Paths
from netagent.model.snapshot import Snapshot
from netagent.reconcile.engine import Engine
from tests.support.netns import Namespace
from tests.support.world import H2, H3, STATICNET, a_block, a_claim, a_host, an_overlay, two_hosts

pytestmark = pytest.mark.kernel


def walk(first: Snapshot) -> list[Snapshot]:
    """Return what host 1 knows one after the other: a host comes, moves, gets more, carries less, and goes."""
    hosts, claims = first.hosts.updated([a_host(3)]), first.claims.updated([a_block("192.168.3.0/24", H3)])
    come = replace(first, hosts=hosts, claims=claims)
    moved = replace(come, hosts=hosts.updated([replace(a_host(3), underlay=(parse_address("198.18.0.33"),))]))
    claim, theirs = a_claim("192.168.0.7", H3), a_claim("192.168.0.7", H2)
    more = replace(moved, claims=claims.updated([a_block("192.168.9.0/24", H3), claim]))
    other = replace(more, claims=more.claims.updated([theirs], gone=[claim]))
    narrow = replace(other, paths=Paths(narrow={(STATICNET, H3, 4): 1400, (STATICNET, H2, 4): 1300}))
    wider = replace(other, paths=Paths(narrow={(STATICNET, H2, 4): 1350}))
    return [come, moved, more, other, narrow, wider, replace(first, claims=first.claims.updated([theirs])), first]


async def test_a_look_at_everything_finds_nothing_after_each_change_of_peers(kernel: Kernel, host: Namespace) -> None:
    known = [two_hosts(an_overlay())]
    engine = Engine(kernel, lambda: known[-1])
    await engine.reconcile()
    at_first = host.ip("route", "show")
    for snapshot in walk(known[0]):
        known.append(snapshot)
        assert await engine.follow()
        assert engine.status.operations
        assert not await engine.reconcile()
    assert host.ip("route", "show") == at_first
