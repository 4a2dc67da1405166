"""What the machine's own network looks like, without anything of ours."""

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from netagent.kernel.decode import LinkRecord
from netagent.kernel.encode import LOOPBACK_INDEX
from netagent.kernel.rtnl import Rtnl
from netagent.model.address import Address
from netagent.model.host import HostFacts, HostRoute
from netagent.plan.desired import ROUTE_PROTOCOL

_MODULES = {"gre": "ip_gre", "gre6": "ip6_gre"}
"""The features that not every kernel has, and the modules that bring them."""


def _has_module(name: str) -> bool:
    """Tell whether the kernel has a module or could load it. Nothing is loaded: it would put devices everywhere."""
    if Path("/sys/module", name).exists():
        return True
    lists = (Path("/lib/modules", os.uname().release, f"modules.{kind}") for kind in ("dep", "builtin"))
    return any(f"/{name}.ko" in path.read_text() for path in lists if path.exists())


def observe_facts(rtnl: Rtnl) -> HostFacts:
    """Return the interfaces and routes that netagent did not make.

    The prefixes of interfaces are among the routes; the best default route is that with the lowest metric, IPv4's
    before IPv6's.
    """
    foreign = {record.index: record for record in rtnl.links() if not record.is_ours}
    addresses: dict[int, list[Address]] = {}
    lengths: dict[int, list[tuple[Address, int]]] = {}
    for found in rtnl.addresses():
        addresses.setdefault(found.index, []).append(found.address)
        lengths.setdefault(found.index, []).append((found.address, found.length))
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
        bridges={r.name: tuple(lengths.get(i, ())) for i, r in foreign.items() if r.kind == "bridge"},
        default_device=foreign[best.index].name if best else None,
        features=frozenset(name for name, module in _MODULES.items() if _has_module(module)),
        outside=tuple(sorted(_outside(foreign.values(), addresses, {r.index for r in defaults}))),
    )


def _outside(
    links: Iterable[LinkRecord], addresses: Mapping[int, Sequence[Address]], defaults: Container[int]
) -> Iterator[str]:
    """Yield the interfaces that lead out of the machine: they have an address, or carry a default route.

    A bridge does not, unless one of its ports is more than the end of a veth pair or tap device, as containers and
    guests have: then it is a machine's uplink with guests beside it.
    """
    inner_kinds = ("veth", "tun")
    wired = {link.master for link in links if link.master and link.kind not in inner_kinds}
    for link in links:
        has_address = any(not a.is_link_local and not a.is_loopback for a in addresses.get(link.index, ()))
        if link.index == LOOPBACK_INDEX or link.master or not (has_address or link.index in defaults):
            continue
        if link.kind != "bridge" or link.index in wired or link.index in defaults:
            yield link.name
