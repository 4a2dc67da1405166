"""The snapshot: everything this host knows at one moment, the only input of every decision."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from netagent.model.address import Address
from netagent.model.block import Block, FixedAddress
from netagent.model.claims import NOTHING, Claims, NetworkClaims
from netagent.model.container import Container
from netagent.model.endpoint import Endpoint
from netagent.model.endpoint_index import Endpoints
from netagent.model.host import Host
from netagent.model.host_index import Hosts
from netagent.model.ids import ContainerId, EndpointId, HostId, NetworkId
from netagent.model.network import Network
from netagent.model.paths import Paths
from netagent.model.persistent_map import PersistentSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """This host, the cluster as the store last told it, and this host's endpoints and containers in the journal."""

    host: Host
    networks: Mapping[NetworkId, Network] = field(default_factory=lambda: MappingProxyType({}))
    hosts: Hosts = field(default_factory=Hosts)
    live: PersistentSet[HostId] = field(default_factory=PersistentSet)
    claims: Claims = field(default_factory=Claims)
    endpoints: Endpoints = field(default_factory=Endpoints)
    containers: Mapping[ContainerId, Container] = field(default_factory=lambda: MappingProxyType({}))
    """This host's containers, as of the last change of an endpoint: what links them is said when they are made."""
    turned: frozenset[tuple[NetworkId, int, HostId]] = frozenset()
    """The peers that this host reaches by the new way of a network that is being moved, with its ``moves``."""
    contested: Mapping[tuple[EndpointId, Address], HostId] = field(default_factory=lambda: MappingProxyType({}))
    """Which address of which endpoint of this host another host holds by now; such an endpoint is not served."""
    paths: Paths = field(default_factory=Paths)
    complete: bool = True
    """False until the store has been heard in full or its last snapshot was read; nothing is pruned before."""

    def with_endpoints(self, endpoints: Endpoints) -> "Snapshot":
        """Return the same snapshot with these endpoints of this host."""
        return replace(self, endpoints=endpoints)

    @property
    def cut_off(self) -> frozenset[EndpointId]:
        """The endpoints of this host that are not served, because another host holds an address of theirs."""
        return frozenset(
            identity
            for identity, address in self.contested
            if (e := self.endpoints.get(identity)) and any(given.address == address for given in e.addresses)
        )

    def has_turned(self, network: Network, peer: HostId) -> bool:
        """Tell whether routes to ``peer`` go by the network's present way, not by the one before."""
        return network.before is None or network.back or (network.id, network.moves, peer) in self.turned

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All hosts' blocks of all networks."""
        return self.claims.blocks

    @property
    def fixed(self) -> tuple[FixedAddress, ...]:
        """All hosts' fixed addresses of all networks."""
        return self.claims.fixed

    def claims_in(self, network_id: NetworkId) -> NetworkClaims:
        """Return all hosts' claims in a network."""
        return self.claims.in_network(network_id)

    def blocks_in(self, network_id: NetworkId) -> Collection[Block]:
        """Return all hosts' blocks of a network."""
        return self.claims_in(network_id).blocks

    def own_blocks_in(self, network_id: NetworkId) -> tuple[Block, ...]:
        """Return this host's blocks of a network, in their order: the own address in the first is its source."""
        return self.claims_in(network_id).holdings.get(self.host.id, NOTHING).blocks

    def endpoints_in(self, network_id: NetworkId) -> tuple[Endpoint, ...]:
        """Return this host's endpoints in a network, dormant ones too."""
        return self.endpoints.in_network(network_id)

    def endpoints_of(self, container_id: ContainerId) -> tuple[Endpoint, ...]:
        """Return a container's endpoints on this host, dormant ones too."""
        return self.endpoints.of_container(container_id)

    def used_addresses(self, network_id: NetworkId) -> frozenset[Address]:
        """Return the addresses that this host's endpoints hold in a network."""
        return frozenset(a.address for e in self.endpoints_in(network_id) for a in e.addresses)
