"""Who has which link-local address on this host: no two containers of it the same. Pure."""

from collections.abc import Iterable

from netagent.errors import Conflict
from netagent.firewall.spoof import link_local
from netagent.model.address import Address
from netagent.model.endpoint import Endpoint
from netagent.model.ids import EndpointId
from netagent.model.network import Network
from netagent.model.snapshot import Snapshot
from netagent.plan.names import bridge_mac
from netagent.plan.render import BRIDGE_LINK_LOCAL


def refuse_taken_link_locals(
    wanted: Iterable[tuple[Network, Address]], snapshot: Snapshot, ours: Iterable[Endpoint]
) -> None:
    """Raise Conflict if another container has one of the addresses, or one is wanted twice; ``ours`` may have them.

    IPv4 ones are looked for in all networks, because the host knows each by one route.
    """
    own = {endpoint.id for endpoint in ours}
    seen: set[Address] = set()
    for network, address in wanted:
        holder = "given twice" if address in seen and address.version == 4 else _holder(address, network, snapshot, own)
        seen.add(address)
        if holder is not None:
            raise Conflict(
                f"Address already in use: {address} {holder}", hint="choose another --link-local-ip, or leave it out"
            )


def _holder(address: Address, network: Network, snapshot: Snapshot, own: set[EndpointId]) -> str | None:
    if address in (BRIDGE_LINK_LOCAL, link_local(bridge_mac(network.id, snapshot.host.id))):
        return f"is the gateway of network {network.name}"
    for endpoint in snapshot.endpoints.values():
        is_near = address.version == 4 or endpoint.network_id == network.id
        if endpoint.id not in own and is_near and address in (*endpoint.link_local, link_local(endpoint.mac)):
            return f"of container {endpoint.container_name}"
    return None
