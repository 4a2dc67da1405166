"""Endpoints: one attachment of a container to a network."""

from dataclasses import dataclass
from enum import StrEnum

from netagent.model.address import Address, Mac
from netagent.model.given_route import GivenRoute, default_route
from netagent.model.ids import ContainerId, EndpointId, NetworkId
from netagent.model.network import Network, Subnet
from netagent.model.port import PortMapping
from netagent.model.rate import Rate


class EndpointState(StrEnum):
    """How far the journal says an endpoint has come.

    ``ATTACHING`` found at start is rolled back (nobody got an answer), ``DETACHING`` is rolled forward. ``DORMANT``
    belongs to a stopped container: its fixed addresses are held, nothing of it is in the kernel.
    """

    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    DORMANT = "dormant"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointAddress:
    """One address of an endpoint. ``fixed`` if the user asked for it, so that it survives stop and start."""

    address: Address
    fixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One attachment, complete enough to be made again from nothing.

    ``sandbox`` is the path of the network namespace, empty where somebody else takes ``interface`` into one and gives
    it its addresses; ``sandbox_inode`` tells a namespace from a later one at the same path (0 while unknown).
    ``ways_out`` are the IP versions whose default route leads through it, decided among all endpoints of a container
    by ``gw_priority``. ``given_routes`` take the place of its network's default route, for each family that has any.
    ``link_local`` are addresses beside the others, known on its bridge alone. ``rate_in`` limits
    what goes to the container, ``rate_out`` what comes from it.
    ``hostname`` is the container's own name for itself, empty if it is not ours to know.
    """

    id: EndpointId
    network_id: NetworkId
    container_id: ContainerId
    container_name: str
    interface: str
    sandbox: str
    sandbox_inode: int = 0
    addresses: tuple[EndpointAddress, ...] = ()
    link_local: tuple[Address, ...] = ()
    mac: Mac
    ports: tuple[PortMapping, ...] = ()
    aliases: tuple[str, ...] = ()
    hostname: str = ""
    gw_priority: int = 0
    ways_out: tuple[int, ...] = (4, 6)
    given_routes: tuple[GivenRoute, ...] = ()
    rate_in: Rate | None = None
    rate_out: Rate | None = None
    state: EndpointState = EndpointState.ATTACHING

    def address_of(self, version: int) -> Address | None:
        """Return the first address of IP ``version`` 4 or 6, or None."""
        return next((a.address for a in self.addresses if a.address.version == version), None)

    def routes_beyond(self, network: Network, subnet: Subnet) -> tuple[GivenRoute, ...]:
        """Return the routes inside the sandbox that lead beyond ``subnet``, one of its network's."""
        version = subnet.prefix.version
        given = tuple(route for route in self.given_routes if route.destination.version == version)
        leads_out = version in self.ways_out and not network.internal
        return tuple(route for route in given or (default_route(subnet),) if leads_out or not route.is_default)

    @property
    def is_given_away(self) -> bool:
        """Whether what is inside its sandbox is somebody else's, as dockerd's."""
        return not self.sandbox

    @property
    def in_kernel(self) -> bool:
        """Whether the kernel should hold this endpoint."""
        return self.state in (EndpointState.ATTACHING, EndpointState.ATTACHED)
