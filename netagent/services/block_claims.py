"""The transaction that gives a block to a host: the one place that says what excludes it."""

from netagent.ipam.allocate import own_address
from netagent.model.address import Prefix
from netagent.model.block import Block
from netagent.model.ids import HostId
from netagent.model.network import Network, Subnet
from netagent.reconcile.ports import Absent, AbsentBelow, Guard, Put
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.host_records import decode_epoch
from netagent.store.records import encode_block


async def claim_block(
    access: StoreAccess, network: Network, subnet: Subnet, prefix: Prefix, owner: HostId, *also: Guard
) -> Block | None:
    """Claim ``prefix`` for ``owner`` while ``also`` holds too; None if another claim was quicker.

    Nobody may hold the block, no fixed address may lie inside, and the network must be what this host believes it is.
    """
    block = Block(
        network_id=network.id,
        prefix=prefix,
        owner=owner,
        epoch=decode_epoch(access.entry(keys.EPOCH)) + 1,
        own_address=own_address(subnet, prefix),
    )
    key = keys.block_key(network.id, prefix)
    guards = (
        Absent(key=key),
        AbsentBelow(prefix=keys.addresses_prefix(network.id, prefix)),
        access.unchanged(keys.network_key(network.name)),
        *also,
    )
    return block if await access.commit(guards, (Put(key=key, value=encode_block(block)),)) else None
