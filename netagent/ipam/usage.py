"""How much of a subnet is given out, in the terms of Docker's ``network inspect``."""

from collections.abc import Iterable
from dataclasses import dataclass

from netagent.model.address import Address, is_inside, is_unassignable, overlap
from netagent.model.network import Subnet


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetUsage:
    """``in_use`` counts what nobody can get: given addresses, the gateway, and what no interface can have.

    ``available`` is what is left for automatic addresses, on all hosts together.
    """

    subnet: Subnet
    in_use: int
    available: int


def count_usage(subnet: Subnet, held: Iterable[Address]) -> SubnetUsage:
    """Return the usage of a subnet in which the addresses ``held`` are had by somebody."""
    prefix, pool, reserved = subnet.prefix, subnet.pool, subnet.reserved_block
    ends = (prefix.network_address, prefix.broadcast_address)
    taken = {address for address in ends if is_unassignable(address, prefix)}
    taken |= {subnet.gateway, *(address for _, address in subnet.auxiliary)}
    taken |= {a for a in held if a.version == prefix.version and a in prefix}
    available = pool.num_addresses - sum(a in pool for a in taken)
    if reserved is not None and overlap(reserved, pool):
        # No block of a host holds these, whoever has some of them by --ip.
        lost = reserved if is_inside(reserved, pool) else pool
        available -= lost.num_addresses - sum(a in lost for a in taken)
    return SubnetUsage(subnet=subnet, in_use=len(taken), available=max(available, 0))
