"""Blocks for hosts and addresses for endpoints."""

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

from netagent.errors import Conflict, Exhausted, InvalidRequest
from netagent.model.address import Address, Prefix, blocks_of, is_inside, is_unassignable, nth
from netagent.model.block import Block, BlockState, FixedAddress
from netagent.model.ids import HostId
from netagent.model.network import Network, Subnet
from netagent.model.snapshot import Snapshot

RANGE_LIMIT = 1 << 16
"""Addresses of one range that are looked at; a longer one is refused only when so many of it are in use."""

_NONE_RESTS: Mapping[Address, float] = MappingProxyType({})


def choose_block(subnet: Subnet, claimed: Iterable[Prefix], fixed: Iterable[Address], *, skip: int = 0) -> Prefix:
    """Return the first block of ``subnet`` that may be claimed, or with ``skip`` one that so many free ones precede.

    Not the one with the gateway, not a claimed one, and none with a fixed address inside. A subnet that is not cut
    into blocks is its own.
    """
    if subnet.reserved_block is None:
        return subnet.prefix
    occupied = {subnet.reserved_block, *claimed}
    occupied |= {block_around(subnet, address) for address in fixed if address in subnet.prefix}
    free = (block for block in blocks_of(subnet.pool, subnet.block_length) if block not in occupied)
    first = list(islice(free, skip + 1))
    if first:
        return first[-1]
    raise Exhausted(
        f"no free block in subnet {subnet.prefix}: all are held by hosts",
        hint="a network with a larger --host-prefix has more, smaller blocks",
    )


def own_address(subnet: Subnet, block: Prefix) -> Address | None:
    """Return the host's own address in its block: the first, or None where the gateway serves as one."""
    return None if subnet.reserved_block is None else nth(block, 0)


def choose_address(
    network: Network,
    blocks: Iterable[Block],
    used: Collection[Address],
    last: Address | None,
    resting: Mapping[Address, float] = _NONE_RESTS,
) -> Address:
    """Return the next free address after ``last`` in ``blocks``, coming round at the end.

    ``resting`` are addresses that were given back too short a time ago, and when: they are given only if there is no
    other, the one that rested longest first.
    """
    usable = [b for b in blocks if b.state is BlockState.CONFIRMED]
    chosen = _next_free(network, usable, {*used, *resting} if resting else used, last)
    if chosen is None:
        rested = [a for a in resting if a not in used and any(_may_give(network, b, a) for b in usable)]
        chosen = min(rested, key=resting.__getitem__, default=None)
    if chosen is None:
        raise Exhausted(
            f"no available addresses on this pool: network {network.name} on this host",
            hint="remove containers (netagent rm), or use another network",
        )
    return chosen


def _next_free(
    network: Network, usable: Sequence[Block], used: Collection[Address], last: Address | None
) -> Address | None:
    starts = [b for b in usable if last is not None and last in b.prefix]
    order = starts + [b for b in usable if b not in starts] + starts
    for position, block in enumerate(order):
        after = last if position == 0 and starts else None
        found = _first_free(network, block, used, after)
        if found is not None:
            return found
    return None


def _first_free(network: Network, block: Block, used: Collection[Address], after: Address | None) -> Address | None:
    subnet = network.subnet_around(block.prefix)
    if subnet is None:
        return None
    pool = block.prefix if is_inside(block.prefix, subnet.pool) else subnet.pool
    offset = int(after) - int(pool.network_address) + 1 if after is not None and after in pool else 0
    # At most as many misses as there are addresses in use, so a large block costs no more than a small one.
    for index in range(offset, min(pool.num_addresses, offset + len(used) + len(subnet.auxiliary) + 4)):
        address = nth(pool, index)
        if address not in used and _may_give(network, block, address):
            return address
    return None


def _may_give(network: Network, block: Block, address: Address) -> bool:
    """Tell whether an address may be given out of a block of this host, if nobody has it."""
    subnet = network.subnet_around(block.prefix)
    if subnet is None or address not in block.prefix or address not in subnet.pool:
        return False
    return not (address == block.own_address or subnet.is_taken(address) or is_unassignable(address, subnet.prefix))


def choose_in_ranges(
    snapshot: Snapshot,
    network: Network,
    ranges: Iterable[tuple[Address, Address]],
    resting: Container[Address],
) -> Address:
    """Return the first address in ``ranges``, both ends included, that this host may have; a resting one if need be.

    Other hosts' blocks and what is fixed, reserved or in use is passed over.
    """
    used = snapshot.used_addresses(network.id)
    rested: Address | None = None
    for first, last in ranges:
        for number in range(int(first), min(int(last), int(first) + RANGE_LIMIT) + 1):
            address = type(first)(number)
            if (
                address in used
                or (rested is not None and address in resting)
                or not _is_free(snapshot, network, address)
            ):
                continue
            if address not in resting:
                return address
            rested = address
    if rested is None:
        raise Exhausted(
            f"no available addresses in the ranges asked for in network {network.name}", hint="widen the ranges"
        )
    return rested


def _is_free(snapshot: Snapshot, network: Network, address: Address) -> bool:
    try:
        needs_claim(snapshot, network, address)
    except (Conflict, InvalidRequest):
        return False
    return True


def needs_claim(snapshot: Snapshot, network: Network, address: Address) -> bool:
    """Tell whether ``address`` must be claimed in the store, because no host's block holds it.

    One that cannot be had on this host is refused, in Docker's words where it has them.
    """
    subnet = network.subnet_of(address)
    if subnet is None:
        raise InvalidRequest(
            f"no configured subnet contains IP address {address}",
            hint=f"network {network.name} has {', '.join(str(s.prefix) for s in network.subnets)}",
        )
    if address == subnet.gateway:
        raise Conflict(f"Address already in use: {address} is the gateway of network {network.name}", address=address)
    if subnet.is_taken(address):
        raise Conflict(f"Address already in use: {address} is auxiliary in network {network.name}", address=address)
    if is_unassignable(address, subnet.prefix):
        raise InvalidRequest(f"requested address is out of range: {address} cannot be given to an interface")
    if address in snapshot.used_addresses(network.id):
        raise Conflict(
            f"Address already in use: {address} in network {network.name}", hint="choose another --ip", address=address
        )
    block = next((b for b in snapshot.blocks_in(network.id) if address in b.prefix), None)
    if block is None:
        _refuse_claimed(snapshot.fixed, network, address, snapshot)
        return True
    if block.owner != snapshot.host.id:
        raise Conflict(
            f"address {address} lies in block {block.prefix} of host {_name(snapshot, block.owner)}",
            hint=f"run the container there, or take an address in {subnet.reserved_block or subnet.prefix}",
            address=address,
        )
    if block.state is BlockState.DRAINING:
        raise Conflict(
            f"address {address} lies in block {block.prefix}, which is being drained",
            hint="choose another --ip, or end it (netagent host drain --stop)",
            address=address,
        )
    if address == block.own_address:
        raise Conflict(
            f"Address already in use: {address} is this host's own in network {network.name}", address=address
        )
    return False


def _refuse_claimed(fixed: Iterable[FixedAddress], network: Network, address: Address, snapshot: Snapshot) -> None:
    for claim in fixed:
        is_left_over = claim.owner == snapshot.host.id and claim.endpoint_id not in snapshot.endpoints
        if claim.network_id == network.id and claim.address == address and not is_left_over:
            where = _name(snapshot, claim.owner)
            raise Conflict(
                f"Address already in use: {address} in network {network.name} on host {where}",
                hint="choose another --ip, or remove the container there"
                + ("" if claim.owner in snapshot.live else f"; if the host is gone for good: netagent host rm {where}"),
                address=address,
            )


def _name(snapshot: Snapshot, host_id: HostId) -> str:
    host = snapshot.hosts.get(host_id)
    return host.name if host else str(host_id)


def block_around(subnet: Subnet, address: Address) -> Prefix:
    """Return the block of ``subnet`` that ``address`` lies in, leased or not."""
    return subnet.block_around(address)
