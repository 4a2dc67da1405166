"""What the machine's own network looks like, without anything of ours."""

from netagent.kernel.rtnl import Rtnl
from netagent.model.address import Address
from netagent.model.host import HostFacts, HostRoute
from netagent.plan.desired import ROUTE_PROTOCOL


def observe_facts(rtnl: Rtnl) -> HostFacts:
    """Return the interfaces and routes that netagent did not make.

    The prefixes of interfaces are among the routes; the best default route is that with the lowest metric, IPv4's
    before IPv6's.
    """
    foreign = {record.index: record for record in rtnl.links() if not record.is_ours}
    addresses: dict[int, list[Address]] = {}
    for found in rtnl.addresses():
        addresses.setdefault(found.index, []).append(found.address)
    routes = [r for r in rtnl.routes() if r.index in foreign and r.protocol != ROUTE_PROTOCOL]
    defaults = [r for r in routes if r.destination.prefixlen == 0]
    best = min(defaults, key=lambda r: (r.destination.version, r.metric), default=None)
    return HostFacts(
        interfaces={r.name: (r.mtu, tuple(addresses.get(index, ()))) for index, r in foreign.items()},
        routes=tuple(
            HostRoute(
                prefix=r.destination, device=foreign[r.index].name, protocol=r.protocol, on_link=r.gateway is None
            )
            for r in routes
        ),
        default_device=foreign[best.index].name if best else None,
    )
