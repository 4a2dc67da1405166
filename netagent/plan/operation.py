"""The closed set of operations on the kernel, their order, and their one-line text form.

The text is what logs, golden tests and bug reports show. Order is data: a plan is sorted by ``phase`` and nothing
else decides what comes first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from netagent.model.address import Address
from netagent.plan.desired import (
    Announcement,
    Chain,
    FdbEntry,
    HostPort,
    InterfaceAddress,
    Link,
    Neighbour,
    Redirect,
    Route,
    Ruleset,
    Shaper,
    SourceRoute,
    SysctlName,
    Target,
    TunnelSource,
    Veth,
)


class Phase(IntEnum):
    """When an operation runs. Additions build from the bottom up, then deletions take down from the top."""

    SET_GUARDS = 1
    """The ruleset, with its drops, before anything that could carry a packet is up."""
    ADD_ELEMENTS = 2
    """An endpoint's rules before its link; a link not yet in the isolation sets is dropped, not open."""
    DELETE_STALE_LINKS = 3
    """A link that must be made anew gives up its name first."""
    ADD_LINKS = 4
    ADD_PORTS = 5
    """Veth pairs, after the bridges that they become ports of."""
    SET_SYSCTLS = 6
    """After the links whose settings they are; before addresses, so that no packet sees the defaults."""
    ADD_LIMITS = 7
    """Before addresses: without one a container has sent nothing yet."""
    ADD_ADDRESSES = 8
    ADD_NEIGHBOURS = 9
    """Neighbour and forwarding entries before the routes that use them, or first packets are lost."""
    ADD_ROUTES = 10
    DELETE_ROUTES = 11
    DELETE_NEIGHBOURS = 12
    DELETE_ADDRESSES = 13
    DELETE_LIMITS = 14
    """Before the device goes that packets are led through: they would be lost."""
    DELETE_PORTS = 15
    DELETE_LINKS = 16
    DELETE_ELEMENTS = 17
    """An endpoint's rules go after its link, so that nothing passes without them."""
    DELETE_EXEMPTIONS = 18
    """After what they exempt from, in a transaction of their own: within one transaction sets with intervals go on
    matching for a moment after the others have changed (nf_tables_commit, net/netfilter/nf_tables_api.c)."""
    FLUSH_FLOWS = 19
    """A connection forgotten before the rules changed would be tracked again under the old ones."""
    ANNOUNCE = 20
    """Last: whoever hears of an address may use it at once."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One change to the kernel. Carrying it out twice is the same as once."""

    @property
    def phase(self) -> Phase:
        """When it runs within a plan."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ReplaceRuleset(Operation):
    """Put both tables in place in one transaction; nothing passes unfiltered in between."""

    ruleset: Ruleset

    @property
    def phase(self) -> Phase:
        return Phase.SET_GUARDS

    def __str__(self) -> str:
        count = sum(len(elements) for elements in self.ruleset.elements.values())
        return f"nft replace tables netagent ({len(self.ruleset.chains)} chains, {count} elements)"


@dataclass(frozen=True, slots=True)
class AddAdminChains(Operation):
    """Make the administrator's table with its chains, empty, unless it is there: then nothing in it is changed."""

    chains: tuple[Chain, ...]

    @property
    def phase(self) -> Phase:
        return Phase.SET_GUARDS

    def __str__(self) -> str:
        return f"nft add table netagent-admin ({', '.join(chain.name for chain in self.chains)})"


@dataclass(frozen=True, slots=True)
class AddElements(Operation):
    """Add elements to one set or map."""

    set_name: str
    elements: tuple[str, ...]

    @property
    def phase(self) -> Phase:
        return Phase.ADD_ELEMENTS

    def __str__(self) -> str:
        return f"nft add element {self.set_name} {{ {', '.join(self.elements)} }}"


@dataclass(frozen=True, slots=True)
class DeleteElements(Operation):
    """Delete elements from one set or map; ``early`` where the same key gets other data in this plan.

    ``last`` where the set holds what a rule that drops makes an exception of.
    """

    set_name: str
    elements: tuple[str, ...]
    early: bool = False
    last: bool = False

    @property
    def phase(self) -> Phase:
        if self.early:
            return Phase.SET_GUARDS
        return Phase.DELETE_EXEMPTIONS if self.last else Phase.DELETE_ELEMENTS

    def __str__(self) -> str:
        return f"nft delete element {self.set_name} {{ {', '.join(self.elements)} }}"


@dataclass(frozen=True, slots=True)
class AddLink(Operation):
    """Create an interface, mark it as ours and bring it up; for a veth both ends, the peer in its sandbox."""

    link: Link

    @property
    def phase(self) -> Phase:
        return Phase.ADD_PORTS if isinstance(self.link.kind, Veth) else Phase.ADD_LINKS

    def __str__(self) -> str:
        return f"link add {self.link.name} type {type(self.link.kind).__name__.lower()} mtu {self.link.mtu}"


@dataclass(frozen=True, slots=True)
class SetLink(Operation):
    """Bring an existing link's MTU, MAC, master, alias and up flag to what ``link`` says."""

    link: Link

    @property
    def phase(self) -> Phase:
        return Phase.ADD_PORTS if isinstance(self.link.kind, Veth) else Phase.ADD_LINKS

    def __str__(self) -> str:
        return f"link set {self.link.name} mtu {self.link.mtu} master {self.link.master} up"


@dataclass(frozen=True, slots=True)
class DeleteLink(Operation):
    """Delete an interface of ours, seen as ``link``; ``stale`` if one of the same name follows in this plan."""

    link: Link
    stale: bool = False

    @property
    def phase(self) -> Phase:
        if self.stale:
            return Phase.DELETE_STALE_LINKS
        return Phase.DELETE_PORTS if isinstance(self.link.kind, Veth) else Phase.DELETE_LINKS

    def __str__(self) -> str:
        return f"link delete {self.link.name}"


@dataclass(frozen=True, slots=True)
class AddAddress(Operation):
    """Add an address to an interface."""

    address: InterfaceAddress

    @property
    def phase(self) -> Phase:
        return Phase.ADD_ADDRESSES

    def __str__(self) -> str:
        return f"address add {self.address}"


@dataclass(frozen=True, slots=True)
class DeleteAddress(Operation):
    """Delete an address from an interface; ``early`` where a route of this plan leads to it, now elsewhere."""

    address: InterfaceAddress
    early: bool = False

    @property
    def phase(self) -> Phase:
        return Phase.ADD_ADDRESSES if self.early else Phase.DELETE_ADDRESSES

    def __str__(self) -> str:
        return f"address delete {self.address}"


@dataclass(frozen=True, slots=True)
class AddNeighbour(Operation):
    """Add or replace a permanent neighbour entry."""

    neighbour: Neighbour

    @property
    def phase(self) -> Phase:
        return Phase.ADD_NEIGHBOURS

    def __str__(self) -> str:
        return f"neighbour replace {self.neighbour}"


@dataclass(frozen=True, slots=True)
class DeleteNeighbour(Operation):
    """Delete a permanent neighbour entry."""

    neighbour: Neighbour

    @property
    def phase(self) -> Phase:
        return Phase.DELETE_NEIGHBOURS

    def __str__(self) -> str:
        return f"neighbour delete {self.neighbour}"


@dataclass(frozen=True, slots=True)
class AddFdb(Operation):
    """Add or replace a VXLAN forwarding entry."""

    entry: FdbEntry

    @property
    def phase(self) -> Phase:
        return Phase.ADD_NEIGHBOURS

    def __str__(self) -> str:
        return f"fdb replace {self.entry}"


@dataclass(frozen=True, slots=True)
class DeleteFdb(Operation):
    """Delete a VXLAN forwarding entry."""

    entry: FdbEntry

    @property
    def phase(self) -> Phase:
        return Phase.DELETE_NEIGHBOURS

    def __str__(self) -> str:
        return f"fdb delete {self.entry}"


@dataclass(frozen=True, slots=True)
class AddTunnelSource(Operation):
    """Take what a peer sends from a prefix."""

    source: TunnelSource

    @property
    def phase(self) -> Phase:
        return Phase.ADD_NEIGHBOURS

    def __str__(self) -> str:
        return f"tunnel source replace {self.source}"


@dataclass(frozen=True, slots=True)
class DeleteTunnelSource(Operation):
    """Take no more what a peer sends from a prefix."""

    source: TunnelSource

    @property
    def phase(self) -> Phase:
        return Phase.DELETE_NEIGHBOURS

    def __str__(self) -> str:
        return f"tunnel source delete {self.source}"


@dataclass(frozen=True, slots=True)
class AddRoute(Operation):
    """Add a route, replacing one of ours to the same destination."""

    route: Route

    @property
    def phase(self) -> Phase:
        return Phase.ADD_ROUTES

    def __str__(self) -> str:
        return f"route replace {self.route}"


@dataclass(frozen=True, slots=True)
class DeleteRoute(Operation):
    """Delete a route of ours."""

    route: Route

    @property
    def phase(self) -> Phase:
        return Phase.DELETE_ROUTES

    def __str__(self) -> str:
        return f"route delete {self.route}"


@dataclass(frozen=True, slots=True)
class AddSourceRoute(Operation):
    """Let packets from an address of a sandbox leave by their own network; the rule comes after its table."""

    route: SourceRoute

    @property
    def phase(self) -> Phase:
        return Phase.ADD_ROUTES

    def __str__(self) -> str:
        return f"rule add {self.route}"


@dataclass(frozen=True, slots=True)
class DeleteSourceRoute(Operation):
    """Take such a rule away; its table's routes go with the interface, or are asked by nobody."""

    route: SourceRoute

    @property
    def phase(self) -> Phase:
        return Phase.DELETE_ROUTES

    def __str__(self) -> str:
        return f"rule delete {self.route}"


@dataclass(frozen=True, slots=True)
class SetSysctl(Operation):
    """Write one kernel setting of the host's namespace."""

    name: SysctlName
    value: str

    @property
    def phase(self) -> Phase:
        return Phase.SET_SYSCTLS

    def __str__(self) -> str:
        return f"sysctl {'.'.join(self.name)} = {self.value}"


@dataclass(frozen=True, slots=True)
class SetShaper(Operation):
    """Let what leaves a device pass a token bucket, instead of whatever queue it has."""

    shaper: Shaper

    @property
    def phase(self) -> Phase:
        return Phase.ADD_LIMITS

    def __str__(self) -> str:
        return f"qdisc replace {self.shaper}"


@dataclass(frozen=True, slots=True)
class DeleteShaper(Operation):
    """Take a token bucket of ours away."""

    shaper: Shaper

    @property
    def phase(self) -> Phase:
        return Phase.DELETE_LIMITS

    def __str__(self) -> str:
        return f"qdisc delete {self.shaper}"


@dataclass(frozen=True, slots=True)
class SetRedirect(Operation):
    """Lead what arrives at a device through another one."""

    redirect: Redirect

    @property
    def phase(self) -> Phase:
        return Phase.ADD_LIMITS

    def __str__(self) -> str:
        return f"filter replace {self.redirect}"


@dataclass(frozen=True, slots=True)
class DeleteRedirect(Operation):
    """Let what arrives at a device go on at once again."""

    redirect: Redirect

    @property
    def phase(self) -> Phase:
        return Phase.DELETE_LIMITS

    def __str__(self) -> str:
        return f"filter delete {self.redirect}"


@dataclass(frozen=True, slots=True)
class FlushPort(Operation):
    """Forget the tracked connections to a host port, except those that are translated to ``kept`` already.

    The kernel asks the NAT rules once per connection: a UDP client that never stops sending would otherwise reach
    the previous container, or none, for ever.
    """

    port: HostPort
    kept: Target | None = None

    @property
    def phase(self) -> Phase:
        return Phase.FLUSH_FLOWS

    def __str__(self) -> str:
        return f"conntrack flush {self.port}" + (f" not to {self.kept}" if self.kept else "")


@dataclass(frozen=True, slots=True)
class FlushAddress(Operation):
    """Forget the tracked connections that an address of a container answers, so that its next owner does not."""

    address: Address

    @property
    def phase(self) -> Phase:
        return Phase.FLUSH_FLOWS

    def __str__(self) -> str:
        return f"conntrack flush to {self.address}"


@dataclass(frozen=True, slots=True)
class Announce(Operation):
    """Tell the neighbours where an address is now, so that they do not go on sending to its former owner."""

    announcement: Announcement

    @property
    def phase(self) -> Phase:
        return Phase.ANNOUNCE

    def __str__(self) -> str:
        return f"announce {self.announcement}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Operations in the order in which they are carried out."""

    operations: tuple[Operation, ...] = ()

    @classmethod
    def ordered(cls, operations: Iterable[Operation]) -> "Plan":
        """Return the plan of ``operations``, sorted by phase and within a phase as given."""
        return cls(tuple(sorted(operations, key=lambda operation: operation.phase)))

    def __str__(self) -> str:
        return "\n".join(str(operation) for operation in self.operations)

    def __bool__(self) -> bool:
        return bool(self.operations)
