"""Writing back into a store what it had: nothing that is there is overwritten."""

from collections.abc import Iterable

from netagent.model.network import Network
from netagent.reconcile.ports import Absent, Put, Unchanged, Write
from netagent.services.network_transactions import create_guards, create_writes
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.host_records import decode_epoch, encode_epoch

ATTEMPTS = 50


async def raise_epoch(access: StoreAccess, claimed: Iterable[int]) -> None:
    """Let no later claim have a lower epoch than those of ``claimed``."""
    least = max(claimed, default=1) - 1
    for _ in range(ATTEMPTS):
        entry = access.entry(keys.EPOCH)
        if decode_epoch(entry) >= least:
            return
        guard = Absent(key=keys.EPOCH) if entry is None else Unchanged(key=keys.EPOCH, revision=entry.revision)
        if await access.commit((guard,), (Put(key=keys.EPOCH, value=encode_epoch(least)),)):
            return


async def put_network(access: StoreAccess, network: Network, record: bytes | None = None) -> None:
    """Create ``network`` anew, as ``record`` has it, if its name is free."""
    key = keys.network_key(network.name)
    writes: list[Write] = create_writes(network)
    if record is not None:
        writes = [Put(key=key, value=record) if write.key == key else write for write in writes]
    for _ in range(ATTEMPTS):
        if access.entry(key) is not None:
            return
        if await access.commit(create_guards(access, network), writes):
            return
