"""The transactions by which a network comes and goes: what must hold, and what is written."""

from netagent.model.network import Network
from netagent.reconcile.ports import Absent, AbsentBelow, Delete, Guard, Put, Write
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.network_records import encode_network

CLAIMS_AT_ONCE = 100
"""Deletions in one transaction; etcd takes 128 operations (``--max-txn-ops``)."""


def create_guards(access: StoreAccess, network: Network) -> list[Guard]:
    """Return what must hold for a create: the name and number are free, and no network has changed meanwhile."""
    guards: list[Guard] = [Absent(key=keys.network_key(network.name))]
    guards.append(generation_guard(access))
    if network.vni is not None:
        guards.append(Absent(key=keys.number_key(network.vni)))
    return guards


def generation_guard(access: StoreAccess) -> Guard:
    """Return the guard that no network was created, given other subnets or removed meanwhile."""
    has_generation = access.entry(keys.GENERATION) is not None
    return access.unchanged(keys.GENERATION) if has_generation else Absent(key=keys.GENERATION)


def create_writes(network: Network) -> list[Write]:
    """Return what a create writes."""
    writes: list[Write] = [
        Put(key=keys.network_key(network.name), value=encode_network(network)),
        Put(key=keys.GENERATION, value=network.id.encode()),
    ]
    if network.vni is not None:
        writes.append(Put(key=keys.number_key(network.vni), value=network.id.encode()))
    return writes


async def finish_removal(access: StoreAccess, network: Network) -> bool:
    """Remove the records of a network that is being deleted, if no host holds a block of it any more."""
    key = keys.network_key(network.name)
    if access.entry(key) is None:
        return True
    guards = (access.unchanged(key), AbsentBelow(prefix=keys.blocks_prefix(network.id)))
    prefix = f"{keys.ADDRESSES}{network.id}/"
    claims = [claim for claim in access.mirror.entries if claim.startswith(prefix)]
    # One transaction takes a hundred or so; no new claim can come while the record says "deleting".
    for start in range(0, len(claims), CLAIMS_AT_ONCE):
        if not await access.commit(guards, [Delete(key=c) for c in claims[start : start + CLAIMS_AT_ONCE]]):
            return False
    writes: list[Write] = [Delete(key=key), Put(key=keys.GENERATION, value=network.id.encode())]
    if network.vni is not None:
        writes.append(Delete(key=keys.number_key(network.vni)))
    return await access.commit(guards, writes)
