"""What containers and networks have received and sent: the counters of this host's links, put together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netagent.drivers import driver_named
from netagent.firewall.counting import ServedPort
from netagent.model.container import Container
from netagent.model.counters import Counters
from netagent.model.endpoint import Endpoint
from netagent.model.network import Network
from netagent.plan.limit import ifb_name
from netagent.plan.names import veth_name
from netagent.services.containers import ContainerService
from netagent.services.context import Context
from netagent.services.names import natural_key
from netagent.services.networks import NetworkService


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStats:
    """An endpoint's counters as its container sees them. ``network`` None: it is gone from the store."""

    container: Container
    endpoint: Endpoint
    network: Network | None
    counters: Counters
    ports: Mapping[str, Counters]
    """By a published port of the container, as ``80/tcp``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStats:
    """What the containers here that are connected now have received and sent, and this host to the others."""

    network: Network
    containers: int
    counters: Counters
    tunnel: Counters | None


class StatsService:
    """Counters of this host. They begin with the interface: a restart of the container starts them anew."""

    def __init__(self, context: Context, networks: NetworkService, containers: ContainerService) -> None:
        self._context = context
        self._networks = networks
        self._containers = containers

    async def containers(self, names: tuple[str, ...]) -> tuple[EndpointStats, ...]:
        """Return the endpoints of the containers that are meant, of all where no name is given."""
        known = self._context.journal.containers
        chosen: Iterable[Container] = [self._containers.find(name) for name in names] if names else known.values()
        links = await self._context.kernel.counters()
        served = await self._context.kernel.served_ports()
        networks = self._context.snapshot().networks
        return tuple(
            EndpointStats(
                container=container,
                endpoint=endpoint,
                network=networks.get(endpoint.network_id),
                counters=_inside(endpoint, links),
                ports=_ports(endpoint, served),
            )
            for container in sorted(chosen, key=lambda c: natural_key(c.name))
            for endpoint in self._context.journal.endpoints_of(container.id)
            if veth_name(endpoint.id) in links
        )

    async def networks(self, names: tuple[str, ...]) -> tuple[NetworkStats, ...]:
        """Return the networks that are meant, of all that give interfaces where no name is given."""
        listed = self._networks.list()
        chosen = [self._networks.find_for_endpoint(n) for n in names] or [n for n in listed if n.has_endpoints]
        links = await self._context.kernel.counters()
        return tuple(self._network(network, links) for network in chosen)

    def _network(self, network: Network, links: Mapping[str, Counters]) -> NetworkStats:
        endpoints = [e for e in self._context.snapshot().endpoints_in(network.id) if veth_name(e.id) in links]
        tunnel = driver_named(network.driver).device(network, self._context.host)
        return NetworkStats(
            network=network,
            containers=len({endpoint.container_id for endpoint in endpoints}),
            counters=sum((_inside(endpoint, links) for endpoint in endpoints), Counters()),
            tunnel=links.get(tunnel) if tunnel else None,
        )


def _ports(endpoint: Endpoint, served: Mapping[ServedPort, Counters]) -> dict[str, Counters]:
    addresses = [given.address for given in endpoint.addresses]
    return {
        f"{port}/{mapping.protocol}": sum(
            (served.get((address, mapping.protocol, port), Counters()) for address in addresses), Counters()
        )
        for mapping in endpoint.ports
        for port in mapping.container_ports
    }


def _inside(endpoint: Endpoint, links: Mapping[str, Counters]) -> Counters:
    """Return what the container sees of its interface; what a limit dropped counts for its direction."""
    through = links.get(ifb_name(endpoint.id), Counters())
    return links[veth_name(endpoint.id)].far_end + Counters(tx_dropped=through.tx_dropped)
