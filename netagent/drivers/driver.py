"""What a driver answers. Pure: options and peers in, a fragment of the desired state out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from netagent.model.address import Address
from netagent.model.block import Block, FixedAddress
from netagent.model.host import Host
from netagent.model.network import Network, Scope
from netagent.plan.desired import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another host of a network, with the blocks and fixed addresses that lie behind it."""

    host: Host
    blocks: tuple[Block, ...] = ()
    fixed: tuple[FixedAddress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """This host's part in a network: its own addresses there, one per family, and the MTU of its interfaces."""

    host: Host
    mtu: int
    own: tuple[Address, ...] = ()

    def own_for(self, version: int) -> Address | None:
        """Return this host's own address of IP ``version`` in the network, or None."""
        return next((a for a in self.own if a.version == version), None)


class Driver(Protocol):
    """One way for the hosts of a network to reach each other."""

    name: str
    scope: Scope
    needs_number: bool
    """Whether networks of this driver get a number (VNI) of their own in the cluster."""

    def overhead(self, host: Host) -> int:
        """Return the bytes that the driver takes from the underlay's MTU on ``host``."""

    def device(self, network: Network) -> str | None:
        """Return the name of the tunnel device, None if the driver has none."""

    def render(self, network: Network, local: Local, peers: Sequence[Peer]) -> State:
        """Return the tunnel device, routes, neighbours and forwarding entries that lead to ``peers``."""
