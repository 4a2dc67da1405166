"""What differs between two snapshots, if it is other hosts' parts alone: the common change, and a small one.

A host that claims a block, an address that moves, a host with another underlay address: of thousands of peers one or
two have changed. Their part of the kernel is rendered from both snapshots, and the difference is what must be done.
Everything else is a matter of a comparison of everything.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace
from types import MappingProxyType

from netagent.model.address import Address
from netagent.model.claims import NOTHING
from netagent.model.ids import HostId
from netagent.model.network import Network
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import Ruleset, State
from netagent.plan.peers import between_hosts, peer_announcements, peer_elements, peers_of
from netagent.plan.render import local_part, network_mtu, networks_here
from netagent.plan.union import union


def changed_peers(before: Snapshot, after: Snapshot) -> frozenset[HostId] | None:
    """Return the hosts whose parts of this host's kernel make all the difference; None if there is more to it.

    Endpoints of this host are no part of it: what attaches and detaches do is in the kernel when they are answered.
    """
    networks = networks_here(after)
    if not _same_ground(before, after) or networks != networks_here(before):
        return None
    changed: set[HostId] = set()
    for network in networks:
        if network.before is not None:
            return None
        changed |= _changed_in(network, before, after)
    if after.host.id in changed:
        return None
    if any(network_mtu(network, before) != network_mtu(network, after) for network in networks):
        return None
    return frozenset(changed | _entangled(networks, changed, before, after))


def render_peers(snapshot: Snapshot, hosts: Collection[HostId]) -> State:
    """Return the part of some other hosts in all networks: without devices, which are no host's part."""
    parts: list[State] = []
    for network in networks_here(snapshot):
        peers = peers_of(snapshot, network, hosts)
        # Nothing of theirs depends on the MTU of this host's interfaces.
        state = between_hosts(snapshot, network, local_part(snapshot, network, mtu=0), peers)
        parts.append(
            replace(
                state,
                links=MappingProxyType({}),
                ruleset=Ruleset(elements=peer_elements(snapshot, network, state, peers)),
                announcements=peer_announcements(snapshot, network, peers),
            )
        )
    return union(parts)


def _same_ground(before: Snapshot, after: Snapshot) -> bool:
    """Tell whether two snapshots agree in what every host's part depends on."""
    own = [(s.complete, s.host, s.turned, s.contested, s.paths.corrupting) for s in (before, after)]
    return own[0] == own[1] and after.complete


def _changed_in(network: Network, before: Snapshot, after: Snapshot) -> set[HostId]:
    """Return the hosts whose claims in a network, or whose records, are different."""
    new = after.claims_in(network.id).holdings
    claims = new.changed_keys(before.claims_in(network.id).holdings)
    records = {host for host in after.hosts.changed(before.hosts) if host in new}
    if before.paths is after.paths:
        return claims | records
    return claims | records | {host for (_, host, _), _ in before.paths.narrow.items() ^ after.paths.narrow.items()}


def _entangled(
    networks: Iterable[Network], changed: Collection[HostId], before: Snapshot, after: Snapshot
) -> set[HostId]:
    """Return the hosts that share elements of the firewall with those that changed.

    So it is with two that give the same underlay address, and with a claim in a block of another host's.
    """
    if not changed:
        return set()
    found: set[HostId] = set()
    ends = frozenset(end for snapshot in (before, after) for host in changed for end in _ends(snapshot, host))
    for network in networks:
        old, new = before.claims_in(network.id), after.claims_in(network.id)
        found |= {other for end in ends for other in after.hosts.at(end) if other in new.holdings}
        if new.fixed:
            pieces = {
                block.prefix
                for claims in (old, new)
                for host in changed
                for block in claims.holdings.get(host, NOTHING).blocks
            }
            found |= {c.owner for c in new.fixed if any(c.address in piece for piece in pieces)}
    return found


def _ends(snapshot: Snapshot, host: HostId) -> tuple[Address, ...]:
    known = snapshot.hosts.get(host)
    return () if known is None else known.underlay
