"""Readiness: could a container be connected to a network here and now (CNI STATUS)? Nothing is changed."""

from netagent.errors import Exhausted
from netagent.ipam.allocate import choose_address, choose_block
from netagent.model.address import is_inside
from netagent.model.network import Network, NetworkState, Subnet
from netagent.services.context import Context
from netagent.services.endpoints import BRIDGE_PORT_LIMIT

NAMED_NAMESPACES = "/run/netns"
"""Where runtimes keep containers' network namespaces, by convention of ip-netns(8)."""


class ReadinessService:
    """Looks at what an attach would need."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def obstacle(self, network: Network) -> str:
        """Return why nothing can be connected to ``network`` now, or an empty text."""
        if network.state is NetworkState.DELETING:
            return f"network {network.name} is being deleted"
        if not network.has_endpoints:
            return f"network {network.name} gives no interface"
        endpoints = self._context.snapshot().endpoints_in(network.id)
        if sum(endpoint.in_kernel for endpoint in endpoints) >= BRIDGE_PORT_LIMIT:
            return f"network {network.name} has {BRIDGE_PORT_LIMIT} containers here, all that a bridge takes"
        return next((text for subnet in network.subnets if (text := self._shortage(network, subnet))), "")

    def _shortage(self, network: Network, subnet: Subnet) -> str:
        """Return why no address of ``subnet`` can be had; a host that has a free one asks nobody."""
        snapshot = self._context.snapshot()
        held = [b for b in snapshot.own_blocks_in(network.id) if is_inside(b.prefix, subnet.prefix)]
        try:
            choose_address(network, held, snapshot.used_addresses(network.id), None)
        except Exhausted as error:
            if held and subnet.reserved_block is None:
                return error.message
        else:
            return ""
        if not self._context.stores.of(network).store.is_connected:
            return f"the store is away, and this host has no free address left in network {network.name}"
        try:
            claims = [claim.address for claim in snapshot.fixed if claim.network_id == network.id]
            choose_block(subnet, [block.prefix for block in snapshot.blocks_in(network.id)], claims)
        except Exhausted as error:
            return error.message
        return ""

    async def blindness(self, caller: int, path: str = NAMED_NAMESPACES) -> str:
        """Return why a namespace that process ``caller`` keeps at ``path`` is not seen here, or an empty text.

        ``caller`` is 0 if it is of another pid namespace.
        """
        if path.startswith("/proc/") or not await self._context.kernel.are_mounts_hidden(caller, path):
            return ""
        return f"the agent does not see network namespaces mounted at {path}: it is in a mount namespace of its own"

    def restriction(self) -> str:
        """Return why containers may not reach all they should, or an empty text."""
        if not self._context.snapshot().complete:
            return "the cluster's store has not been heard yet: other hosts are not known"
        error = self._context.engine.status.error
        return f"the kernel is not as it should be: {error}" if error else ""
