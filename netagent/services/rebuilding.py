"""A cluster's store rebuilt from its hosts, after it was wiped or lost.

What a host has in use outlives its records (``store/view.py``). Rebuilding writes it back: first the claims, its own
and its peers' as far as they are known, then the networks they are in, so that no block is free for a moment. Nothing
that the store has is overwritten. What is to be written is in the journal first, so a rebuilding that ends midway is
completed by the next one. Each host adds what only it knows: its record and its endpoints come by themselves.
"""

import logging
from dataclasses import dataclass

from netagent.errors import InvalidRequest
from netagent.ipam.pools import refuse_overlap
from netagent.model.host import HostFacts
from netagent.reconcile.ports import Absent, Put
from netagent.services.context import Context
from netagent.services.keeping import keep_orphans
from netagent.services.restoring import put_network, raise_epoch
from netagent.services.stores import StoreAccess
from netagent.store import keys

log = logging.getLogger("netagent.rebuilding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What was written back: the names of networks, and how many claims and hosts."""

    networks: tuple[str, ...]
    claims: int


class RebuildingService:
    """Writes back what the store has lost and this host has in use."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def rebuild(self) -> Rebuilt:
        """Write back all that was kept; Conflict if a network overlaps one that was created since."""
        if self._context.stores.cluster is self._context.stores.local:
            raise InvalidRequest(
                "this host has a store of its own", hint="only a cluster's store is rebuilt from hosts"
            )
        access = self._context.stores.cluster
        # What is lost is known of a store that answers, and of the cluster's own.
        await access.hear_anew()
        view = access.view
        lost = [n for n in view.networks.values() if self._is_lost(access, keys.network_key(n.name))]
        present = [n for n in view.networks.values() if n not in lost]
        for network in lost:
            refuse_overlap(network.subnets, present, HostFacts(interfaces={}, routes=()))
        known = {keys.block_key(b.network_id, b.prefix): b for b in view.claims.blocks}
        blocks = {key: block for key, block in known.items() if self._is_lost(access, key)}
        claims = [*blocks, *(key for key in view.fixed_records if self._is_lost(access, key))]
        hosts = [key for key in map(keys.host_key, view.hosts) if self._is_lost(access, key)]
        # An agent that dies in between knows the rest from there.
        keep_orphans(self._context.journal, self._context.stores)
        records = view.orphans
        await raise_epoch(access, (block.epoch for block in blocks.values()))
        for key in (*claims, *hosts):
            await access.commit((Absent(key=key),), (Put(key=key, value=records[key]),))
        for network in lost:
            await put_network(access, network, records[keys.network_key(network.name)])
            log.info("network %s is in the store again", network.name)
        return Rebuilt(networks=tuple(sorted(network.name for network in lost)), claims=len(claims))

    def _is_lost(self, access: StoreAccess, key: str) -> bool:
        return key in access.view.orphaned and access.entry(key) is None
