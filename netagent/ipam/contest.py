"""Addresses of this host's endpoints that belong to somebody else by now.

An operator may take a dead host's claims, and others may get them. Should the host come back all the same, what it
gave out of them earlier must not be served a second time.
"""

from netagent.ipam.allocate import block_around
from netagent.model.address import Address
from netagent.model.ids import EndpointId, HostId
from netagent.model.network import Scope
from netagent.model.snapshot import Snapshot


def find_contested(snapshot: Snapshot) -> dict[tuple[EndpointId, Address], HostId]:
    """Return which address of which endpoint of this host another host holds, and which host that is."""
    own = snapshot.host.id
    found: dict[tuple[EndpointId, Address], HostId] = {}
    for endpoint in snapshot.endpoints.values():
        network = snapshot.networks.get(endpoint.network_id)
        if network is None or network.scope is Scope.LOCAL:
            continue
        there = snapshot.claims_in(network.id)
        for given in endpoint.addresses:
            subnet = network.subnet_of(given.address)
            if subnet is None:
                continue
            claims = there.fixed_at(given.address), there.block_at(block_around(subnet, given.address))
            holder = next((claim.owner for claim in claims if claim is not None and claim.owner != own), None)
            if holder is not None:
                found[endpoint.id, given.address] = holder
    return found
