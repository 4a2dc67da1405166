"""What the front doors ask of the services, and what they get back: values between ``api`` and ``services``.

Texts in requests are still as the caller wrote them; the services parse them and refuse what is wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from netagent.ipam.usage import SubnetUsage
from netagent.model.block import Block, FixedAddress
from netagent.model.container import Container, ContainerKind, Delegation
from netagent.model.endpoint import Endpoint
from netagent.model.host import Host
from netagent.model.ids import NetworkId
from netagent.model.network import Network
from netagent.model.rate import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNetwork:
    """A network to be created. ``host_prefix`` None: the default block length; ``ipv4`` None: as the subnets say.

    ``force``: its subnets may be what hosts route otherwise.
    """

    name: str
    driver: str = "bridge"
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    aux_addresses: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    host_prefix: int | None = None
    internal: bool = False
    ipv4: bool | None = None
    ipv6: bool = False
    force: bool = False
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRange:
    """Where an address is to come from: ``first`` to ``last``; ``gateway`` is what the network's must be, if given."""

    first: str
    last: str
    gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How a container is to be connected; ``networks`` as ``--network`` gives them, the default network if empty.

    With ``ranges`` of a family its address comes from there, if none is named. ``routes`` are pairs of destination and
    gateway in place of the network's default route.
    """

    networks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    mac: str = ""
    aliases: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    publish_all: bool = False
    rate_in: str | Rate = ""
    rate_out: str | Rate = ""
    gw_priority: int = 0
    ranges: tuple[AddressRange, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    link_local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConnection:
    """A container to be added to a network."""

    network: str
    container: str
    addresses: tuple[str, ...] = ()
    mac: str = ""
    aliases: tuple[str, ...] = ()
    rate_in: str = ""
    rate_out: str = ""
    gw_priority: int = 0
    link_local: tuple[str, ...] = ()
    interface: str = ""
    driver_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChange:
    """New limits of a container in one of its networks, or in all if ``network`` is empty.

    A rate None stays as it is, an empty text takes the limit away.
    """

    container: str
    network: str = ""
    rate_in: str | None = None
    rate_out: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkChange:
    """What is to be changed of a network; an option with an empty text goes back to its default.

    An empty ``driver`` stays as it is. With ``force`` hosts may route the ``subnets`` otherwise.
    """

    name: str
    driver: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    removed_labels: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    removed_subnets: tuple[str, ...] = ()
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContainer:
    """A container to be created; the flags of ``netagent run``. An empty name is replaced by a chosen one."""

    command: tuple[str, ...]
    name: str = ""
    connection: Connection = Connection()
    hostname: str = ""
    environment: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    rootfs: str = ""
    terminal: bool = False
    interactive: bool = False
    auto_remove: bool = False
    working_directory: str = "/"
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    sysctls: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A namespace to be connected under a name.

    ``container_id`` is the runtime's own id (CNI), empty for ``netagent attach``, which gets a new one. Further
    attachments of the same container have other ``interface`` names. ``configuration`` is the name of the runtime's
    network configuration (CNI), in the scope of which its garbage is collected; ``ipam`` has given the addresses.
    ``names`` are what its runtime calls it beside that: answered by DNS as aliases are.
    """

    name: str
    netns: str
    connection: Connection = Connection()
    interface: str = ""
    kind: ContainerKind = ContainerKind.ATTACHED
    container_id: str = ""
    configuration: str = ""
    ipam: Delegation | None = None
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """A container with its endpoints, each beside its network (None if the network is gone), and its process.

    ``sysctls``, ``cap_add`` and ``cap_drop`` are as they were asked for.
    """

    container: Container
    endpoints: tuple[tuple[Endpoint, Network | None], ...] = ()
    pid: int = 0
    terminal: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkView:
    """A network with who holds what of it. Endpoints come with their host; blocks with the addresses in use."""

    network: Network
    endpoints: tuple[tuple[Endpoint, Host], ...] = ()
    blocks: tuple[tuple[Block, Host | None, int], ...] = ()
    effective_mtu: int = 0
    usage: tuple[SubnetUsage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """A host with what is known of it: its claims, its endpoints as it published them.

    ``conflicts`` are the containers of this host that are not served, because another host holds their address,
    ``seized`` the claims of this host that another one overwrote, ``problems`` what is wrong on the way to a host.
    """

    host: Host
    live: bool
    is_self: bool
    blocks: tuple[tuple[Network, Block], ...] = ()
    fixed: tuple[FixedAddress, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    networks: Mapping[NetworkId, Network] = field(default_factory=lambda: MappingProxyType({}))
    conflicts: tuple[str, ...] = ()
    seized: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
