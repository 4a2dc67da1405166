"""Networks: named layer-3 domains, and the subnets they consist of."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from netagent.model.address import Address, Prefix, is_inside
from netagent.model.ids import HostId, NetworkId

DEFAULT_NETWORK = "bridge"
DEFAULT_INTERFACE_PREFIX = "eth"
PREDEFINED = frozenset({"bridge", "host", "none"})
"""Names that exist on every host and are neither created nor removed by users."""


class Scope(StrEnum):
    """Who shares a network."""

    LOCAL = "local"
    GLOBAL = "global"


class NetworkState(StrEnum):
    """A network that is being deleted takes no new endpoints; its owners give their blocks back."""

    ACTIVE = "active"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One address range of a network.

    ``block_length`` is the prefix length of the blocks that hosts lease from it; equal to the subnet's own for a
    network that lives on one host. Automatic addresses come from ``ip_range``, the whole subnet if None;
    ``auxiliary`` are names and addresses of what is there already, never given to an endpoint.
    """

    prefix: Prefix
    gateway: Address
    block_length: int
    ip_range: Prefix | None = None
    auxiliary: tuple[tuple[str, Address], ...] = ()

    @property
    def pool(self) -> Prefix:
        """Where automatic addresses come from."""
        return self.prefix if self.ip_range is None else self.ip_range

    def is_taken(self, address: Address) -> bool:
        """Tell whether ``address`` belongs to something that is no endpoint: the gateway or an auxiliary address."""
        return address == self.gateway or any(address == other for _, other in self.auxiliary)

    def block_around(self, address: Address) -> Prefix:
        """Return the block that ``address`` lies in, leased or not."""
        return type(self.prefix)((int(address), self.block_length), strict=False)

    @property
    def reserved_block(self) -> Prefix | None:
        """The block that is never leased, because it holds the gateway and the fixed addresses; None if uncut."""
        if self.block_length == self.prefix.prefixlen:
            return None
        return self.block_around(self.gateway)

    def has_block(self, prefix: Prefix) -> bool:
        """Tell whether ``prefix``, which lies in this subnet, is a block that a host may hold."""
        is_uncut = self.block_length == self.prefix.prefixlen
        return prefix.prefixlen == self.block_length and (is_uncut or self.gateway not in prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the hosts of a network reach each other: the driver and what it was told; see ``Network``."""

    driver: str
    underlay: int = 4
    direct_routing: bool = False
    fallback: str | None = None
    backend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoneNetwork:
    """A network that was removed by force, and the ids of the ``hosts`` that held blocks of it and do not know yet."""

    id: NetworkId
    name: str
    hosts: tuple[HostId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network as every host sees it. ``vni`` is its number in tunnels, None where the driver has none.

    ``icc`` false: its containers reach each other only through published ports. ``masquerade`` false: what leaves it
    keeps its source address, always or towards ``masquerade_except`` only. ``outbound`` are the host's addresses that
    it takes else, at most one of each family, those of the outgoing interface if empty. ``underlay`` is the IP version
    of the tunnels between hosts. ``direct_routing``: no tunnel between hosts on one segment. ``fallback`` is the driver
    that reaches hosts which ``driver`` cannot, ``backend`` what makes the tunnels, None for what each host has.
    ``host_bindings`` are the host addresses of published ports for which nobody named one, at most one of each family;
    the host's own default if empty. ``overlaps``: its subnets may be what hosts route otherwise. ``bridge`` is an
    existing bridge of somebody else's that the network uses, None for one of its own. ``interface_prefix`` begins the
    names of the interfaces inside its containers. ``routed`` are the IP versions in which its containers are reached by
    their own addresses at published ports and no host port leads to them, ``unprotected`` those in which they are so at
    any port; from the interfaces ``trusted`` of the host they are in each. ``default_route`` false: it is nobody's way
    out; ``routes`` are destinations and gateways beside it, ``nameservers`` who is asked for names outside.
    ``before`` is the way that is left while the hosts turn to another; ``moves`` counts how often that was begun.
    ``back``: the other is the one that they were leaving, so all of them have it yet.
    """

    id: NetworkId
    name: str
    driver: str
    scope: Scope
    subnets: tuple[Subnet, ...] = ()
    vni: int | None = None
    internal: bool = False
    mtu: int | None = None
    bridge: str | None = None
    icc: bool = True
    masquerade: bool = True
    masquerade_except: tuple[Prefix, ...] = ()
    outbound: tuple[Address, ...] = ()
    underlay: int = 4
    direct_routing: bool = False
    fallback: str | None = None
    host_bindings: tuple[Address, ...] = ()
    overlaps: bool = False
    backend: str | None = None
    interface_prefix: str = DEFAULT_INTERFACE_PREFIX
    routed: tuple[int, ...] = ()
    unprotected: tuple[int, ...] = ()
    trusted: tuple[str, ...] = ()
    default_route: bool = True
    routes: tuple[tuple[str, str], ...] = ()
    nameservers: tuple[str, ...] = ()
    before: Way | None = None
    moves: int = 0
    back: bool = False
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    created: str = ""
    state: NetworkState = NetworkState.ACTIVE

    @property
    def way(self) -> Way:
        """How its hosts reach each other, or shall when all have turned to it."""
        return Way(
            driver=self.driver,
            underlay=self.underlay,
            direct_routing=self.direct_routing,
            fallback=self.fallback,
            backend=self.backend,
        )

    def by(self, way: Way) -> "Network":
        """Return the same network with another way, and none before it."""
        return replace(
            self,
            driver=way.driver,
            underlay=way.underlay,
            direct_routing=way.direct_routing,
            fallback=way.fallback,
            backend=way.backend,
            before=None,
            back=False,
        )

    @property
    def is_predefined(self) -> bool:
        """Whether the network is one of those that always exist."""
        return self.name in PREDEFINED and self.scope is Scope.LOCAL

    @property
    def has_endpoints(self) -> bool:
        """Whether containers get an interface in it; ``host`` and ``none`` give none."""
        return bool(self.subnets)

    def subnet_of(self, address: Address) -> Subnet | None:
        """Return the subnet that ``address`` lies in, or None."""
        return next((s for s in self.subnets if s.prefix.version == address.version and address in s.prefix), None)

    def subnet_around(self, prefix: Prefix) -> Subnet | None:
        """Return the subnet that ``prefix`` lies in whole, or None."""
        return next((s for s in self.subnets if is_inside(prefix, s.prefix)), None)
