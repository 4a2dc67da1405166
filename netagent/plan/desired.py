"""The kernel's state as values: the same classes say what it should hold and what was observed.

Everything is keyed, so that a difference is a comparison of dictionaries and sets. ``where`` names the network
namespace an object lives in: the path of a container's sandbox, or ``HOST`` for the agent's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from netagent.model.address import Address, Mac, Prefix

HOST = ""
"""The agent's own network namespace."""

LINK_PREFIX = "na"
"""Every interface of ours in the host's namespace is named so."""

ALIAS_PREFIX = "netagent:"
"""Every interface of ours carries ``netagent:<id>`` as its alias; without it a link is somebody else's."""

ROUTE_PROTOCOL = 0x6E
"""The number that marks our routes (rtm_protocol, free in /etc/iproute2/rt_protos)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A software bridge without spanning tree; its MAC is set, so it does not change as ports come and go.

    ``learns_from_groups``: also from frames to bridges' own group addresses (IEEE 802.1Q, table 8-1), which no rule
    sees first (br_handle_frame, net/bridge/br_input.c). A container could draw a neighbour's frames to itself by one.
    """

    learns_from_groups: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vxlan:
    """A VXLAN device (RFC 7348) that learns nothing: every peer is a permanent FDB entry."""

    vni: int
    local: Address
    port: int = 4789


@dataclass(frozen=True, slots=True, kw_only=True)
class Gretap:
    """A GRE device for inner Ethernet whose routes say key and peer (``external``); ``version``: that of outer IP.

    A namespace takes one of each version.
    """

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OvsGre:
    """The local port of a bridge of Open vSwitch that has a GRE tunnel with this key; peers are forwarding entries."""

    key: int
    local: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Veth:
    """A veth pair whose other end is ``interface`` with ``peer_mac`` in the namespace ``sandbox``.

    ``sandbox_inode`` is the namespace's inode number, 0 if any will do; another inode at the path is a stranger.
    ``hairpin``: the bridge may send a frame back through the port it came from.

    With ``HOST`` as its sandbox the other end is made beside this one, for somebody who takes it away and looks after
    it from then on, as dockerd does: it is neither observed nor set again, and a pair that is gone is not made anew.
    """

    sandbox: str
    interface: str
    peer_mac: Mac
    sandbox_inode: int = 0
    hairpin: bool = False

    @property
    def is_given_away(self) -> bool:
        """Whether somebody else takes the other end away and owns it."""
        return self.sandbox == HOST


@dataclass(frozen=True, slots=True, kw_only=True)
class Ifb:
    """A device (drivers/net/ifb.c) that gives back what it is given, so that what arrives can be queued."""


Kind: TypeAlias = Bridge | Vxlan | Gretap | OvsGre | Veth | Ifb


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface of ours in the host's namespace. ``master`` is the bridge it is a port of.

    Desired links are always up; ``up`` is false only in an observation. ``offload`` False: checksums are worked out
    before packets enter it; None: as the device has it.
    """

    name: str
    kind: Kind
    mtu: int
    alias: str
    mac: Mac | None = None
    master: str | None = None
    up: bool = True
    offload: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceAddress:
    """An address with its prefix length on an interface. ``connected`` false: no route to the prefix is made."""

    device: str
    address: Address
    length: int
    where: str = HOST
    connected: bool = True

    def __str__(self) -> str:
        return f"{self.address}/{self.length} dev {self.device}{_in(self.where)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encap:
    """What a route tells a tunnel device: outer addresses and key (lwtunnel, since Linux 4.3)."""

    key: int
    source: Address
    destination: Address

    def __str__(self) -> str:
        name = "ip" if self.destination.version == 4 else "ip6"
        return f"encap {name} id {self.key} src {self.source} dst {self.destination}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A unicast route with our protocol number; ``onlink`` for a gateway that no connected prefix covers.

    An IPv4 destination may have an IPv6 gateway (RFC 5549; since Linux 5.2). ``mtu`` is the largest packet that may
    go this way, None for what the device takes; who sends a larger one is told (RFC 1191, RFC 8201).
    """

    destination: Prefix
    device: str
    gateway: Address | None = None
    source: Address | None = None
    onlink: bool = False
    where: str = HOST
    encap: Encap | None = None
    mtu: int | None = None

    def __str__(self) -> str:
        is_foreign = self.gateway is not None and self.gateway.version != self.destination.version
        via = f" via {'inet6 ' if is_foreign else ''}{self.gateway}" if self.gateway else ""
        src = f" src {self.source}" if self.source else ""
        encap = f" {self.encap}" if self.encap else ""
        rest = f"{src}{' onlink' if self.onlink else ''}{f' mtu lock {self.mtu}' if self.mtu else ''}"
        return f"{self.destination}{encap}{via} dev {self.device}{rest}{_in(self.where)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRoute:
    """Packets from ``address`` leave by ``device`` and its ``gateway``, whatever the main table says (ip-rule(8)).

    In a sandbox: a rule, and a routing table of its own with ``prefix`` on the link and everything else by the gateway.
    With ``to`` only packets to that prefix do.
    """

    device: str
    address: Address
    prefix: Prefix
    gateway: Address
    table: int
    where: str
    to: Prefix | None = None

    def __str__(self) -> str:
        way = f"table {self.table} via {self.gateway} dev {self.device}"
        return f"from {self.address}{f' to {self.to}' if self.to else ''} {way}{_in(self.where)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A permanent neighbour (ARP or ND) entry on a tunnel device."""

    device: str
    address: Address
    mac: Mac

    def __str__(self) -> str:
        return f"{self.address} lladdr {self.mac} dev {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FdbEntry:
    """A permanent forwarding entry of a tunnel device: frames to ``mac`` go to the underlay address ``destination``."""

    device: str
    mac: Mac
    destination: Address

    def __str__(self) -> str:
        return f"{self.mac} dst {self.destination} dev {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSource:
    """What a bridge of Open vSwitch takes from a peer: packets whose inner source lies in ``prefix``.

    ``peer`` is the outer source. What other tunnel devices bring is looked at by the firewall.
    """

    device: str
    peer: Address
    prefix: Prefix

    def __str__(self) -> str:
        return f"{self.prefix} from {self.peer} dev {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaper:
    """A token bucket (tbf) for all that leaves ``device``.

    ``rate`` in bytes a second; ``burst``, what passes at once, and ``queue``, what waits before more is dropped, in
    bytes.
    """

    device: str
    rate: int
    burst: int
    queue: int

    def __str__(self) -> str:
        return f"tbf rate {self.rate * 8}bit burst {self.burst} limit {self.queue} dev {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """All that arrives at ``device`` is led ``through`` another one and then goes on as if it had not been."""

    device: str
    through: str

    def __str__(self) -> str:
        return f"dev {self.device} through {self.through}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What the neighbours on a link are told when it becomes so: ``address`` is at ``mac``. Sent from ``device``.

    In a sandbox it goes with the address there; on the host with the route to the address alone, for which the
    bridge ``device`` answers.
    """

    device: str
    address: Address
    mac: Mac
    where: str = HOST

    def __str__(self) -> str:
        return f"{self.address} at {self.mac} dev {self.device}{_in(self.where)}"


SysctlName: TypeAlias = tuple[str, ...]
"""The parts below /proc/sys, e.g. ``("net", "ipv4", "conf", "na0", "proxy_arp")``: interface names may hold dots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One nftables chain. ``hook`` is its "type … hook … priority …; policy …;" text, None for a regular chain.

    ``name`` as in ``Ruleset``.
    """

    name: str
    rules: tuple[str, ...]
    hook: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementSet:
    """One named nftables set, or a map where ``data`` is given; ``key`` and ``data`` are nft type expressions.

    A ``key`` that begins with ``typeof`` names expressions instead, for what has no type. ``name`` as in ``Ruleset``.
    With the flag ``dynamic`` its elements are made by rules; they are no part of what is desired or observed.
    """

    name: str
    key: str
    data: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """The content of the tables ``inet netagent`` and ``bridge netagent``.

    Sets and chains of the first are known by their names alone, those of the second as ``bridge/<name>``. ``sets``
    and ``chains`` are the same for every host and change only with the program; what differs is ``elements``: the
    name of a set -> its elements in nft's own text form (``"tcp . 4000 : 10.0.0.2 . 80"``).

    One spelling, so that elements compare as text: parts joined by " . ", a map's data after " : ", addresses as
    ``ipaddress`` writes them, prefixes with their length except single addresses (``10.1.0.0/16``, ``10.1.0.7``),
    ranges as ``90-100``, protocols by name, ports as numbers, interface names without quotes, verdicts as
    ``accept``, ``drop``, ``jump chain`` or ``goto chain``, numbers of more than 64 bits as ``0x…``.
    """

    sets: tuple[ElementSet, ...] = ()
    chains: tuple[Chain, ...] = ()
    elements: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPort:
    """Ports ``first`` to ``last`` of one protocol on this host, on every address of a family or on one."""

    version: int
    protocol: str
    first: int
    last: int
    address: Address | None = None

    def __str__(self) -> str:
        where = "*" if self.address is None else str(self.address)
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"ipv{self.version} {f'[{where}]' if ':' in where else where}:{ports}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where connections to a host port go: an address and the port there, of a range the first."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that one pass compares. For the scope of one endpoint it holds only that endpoint's part."""

    links: Mapping[str, Link] = field(default_factory=lambda: MappingProxyType({}))
    addresses: frozenset[InterfaceAddress] = frozenset()
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()
    fdb: frozenset[FdbEntry] = frozenset()
    tunnel_sources: frozenset[TunnelSource] = frozenset()
    shapers: frozenset[Shaper] = frozenset()
    redirects: frozenset[Redirect] = frozenset()
    sysctls: Mapping[SysctlName, str] = field(default_factory=lambda: MappingProxyType({}))
    ruleset: Ruleset | None = None
    """In an observation: what the kernel's table holds, None if there is no such table."""
    admin: tuple[Chain, ...] = ()
    """The administrator's chains, in a table of their own: made empty where that is missing, and never touched again.
    In an observation: as desired if the table is there, whatever it holds."""
    source_routes: frozenset[SourceRoute] = frozenset()
    announcements: frozenset[Announcement] = frozenset()
    """In a desired state only: what is told once, when it comes true; nothing that could be observed."""
    broken: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """In an observation: links of ours that cannot be used as they are -> why (their sandbox end is gone)."""


def _in(where: str) -> str:
    return f" in {where}" if where else ""
