"""Which of a container's networks its answers leave by: the one that was asked.

A container in one network needs none of this. In several, the main table sends an answer to wherever its destination
lies: by the default route, or straight into another network of the container's. Both are refused there, for the
source is another network's.
"""

from collections.abc import Iterable
from dataclasses import replace

from netagent.model.address import Prefix
from netagent.model.endpoint import Endpoint
from netagent.model.network import Network
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import SourceRoute

_FIRST_TABLE, _TABLE_DIGITS = 1000, 6
"""Routing tables of sandboxes: numbered by their endpoint's id, above those that have names (rt_tables)."""


def source_routes(snapshot: Snapshot, endpoint: Endpoint, network: Network) -> Iterable[SourceRoute]:
    """Yield the routes of what comes from an endpoint's addresses, in a sandbox that is ours to fill.

    Everything, if its network is not the default way out; else what goes to another network of the container, so that
    routes that somebody inside added to the main table hold.
    """
    if network.internal or not endpoint.sandbox:
        return
    beside = _prefixes_beside(snapshot, endpoint)
    for given in endpoint.addresses:
        subnet = network.subnet_of(given.address)
        if subnet is None:
            continue
        route = SourceRoute(
            device=endpoint.interface,
            address=given.address,
            prefix=subnet.prefix,
            gateway=subnet.gateway,
            table=_FIRST_TABLE + int(endpoint.id[:_TABLE_DIGITS], 16),
            where=endpoint.sandbox,
        )
        if given.address.version not in endpoint.ways_out:
            yield route
        else:
            yield from (replace(route, to=prefix) for prefix in beside if prefix.version == given.address.version)


def _prefixes_beside(snapshot: Snapshot, endpoint: Endpoint) -> list[Prefix]:
    """Return the subnets of the other networks that the container is connected to."""
    others = snapshot.endpoints_of(endpoint.container_id)
    networks = (snapshot.networks.get(e.network_id) for e in others if e.in_kernel and e.id != endpoint.id)
    return [subnet.prefix for network in networks if network is not None for subnet in network.subnets]
