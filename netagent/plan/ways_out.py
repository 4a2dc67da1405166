"""Which of a container's networks its default routes lead through, decided for IPv4 and IPv6 apart."""

from collections.abc import Iterable, Mapping, Sequence

from netagent.model.endpoint import Endpoint
from netagent.model.given_route import lead_out
from netagent.model.ids import EndpointId, NetworkId
from netagent.model.network import Network


def choose_ways_out(
    endpoints: Sequence[Endpoint], networks: Mapping[NetworkId, Network], *, in_order: bool = False
) -> dict[EndpointId, tuple[int, ...]]:
    """Return for each of a container's endpoints the IP versions whose default route leads through it.

    The highest gateway priority wins, and among equals the network whose name comes first, as in Docker; with
    ``in_order`` the endpoint that comes first. Internal networks lead nowhere, and an endpoint without an address
    of one family is no way out for that.
    """
    versions: dict[EndpointId, tuple[int, ...]] = {endpoint.id: () for endpoint in endpoints}
    for version in (4, 6):
        leading = [e for e in endpoints if _leads_out(e, networks.get(e.network_id), version)]
        ranked = sorted(leading, key=lambda e: (-e.gw_priority, "" if in_order else networks[e.network_id].name))
        for winner in ranked[:1]:
            versions[winner.id] = (*versions[winner.id], version)
    return versions


def _leads_out(endpoint: Endpoint, network: Network | None, version: int) -> bool:
    if network is None or network.internal or not network.default_route or endpoint.address_of(version) is None:
        return False
    return lead_out(endpoint.given_routes, version)


def changed_ways_out(
    endpoints: Iterable[Endpoint], chosen: Mapping[EndpointId, tuple[int, ...]]
) -> list[tuple[Endpoint, tuple[int, ...]]]:
    """Return the endpoints that ``chosen`` gives other versions than they have, with what it gives."""
    return [(e, chosen[e.id]) for e in endpoints if e.ways_out != chosen[e.id]]
