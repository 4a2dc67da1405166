"""A cluster's store rebuilt from its hosts, after it was wiped or lost.

What a host has in use outlives its records (``store/view.py``). Rebuilding writes it back: first the claims, its own
and its peers' as far as they are known, then the networks they are in, so that no block is free for a moment. Nothing
that the store has is overwritten. Each host adds what only it knows: its record and its endpoints come by themselves.
"""

import logging
from dataclasses import dataclass

from netagent.errors import InvalidRequest
from netagent.ipam.pools import refuse_overlap
from netagent.model.host import HostFacts
from netagent.reconcile.ports import Absent, Put
from netagent.services.context import Context
from netagent.services.restoring import put_network, raise_epoch
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.records import encode_block, encode_fixed, encode_host

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
        blocks = [b for b in view.blocks if self._is_lost(access, keys.block_key(b.network_id, b.prefix))]
        writes = [Put(key=keys.block_key(b.network_id, b.prefix), value=encode_block(b)) for b in blocks]
        writes += [Put(key=k, value=encode_fixed(c)) for k, c in view.claims.items() if self._is_lost(access, k)]
        claims = len(writes)
        hosts = ((keys.host_key(h.id), h) for h in view.hosts.values())
        writes += [Put(key=key, value=encode_host(host)) for key, host in hosts if self._is_lost(access, key)]
        await raise_epoch(access, (block.epoch for block in blocks))
        for write in writes:
            await access.commit((Absent(key=write.key),), (write,))
        for network in lost:
            await put_network(access, network)
            log.info("network %s is in the store again", network.name)
        return Rebuilt(networks=tuple(sorted(network.name for network in lost)), claims=claims)

    def _is_lost(self, access: StoreAccess, key: str) -> bool:
        return key in access.view.orphaned and access.entry(key) is None
