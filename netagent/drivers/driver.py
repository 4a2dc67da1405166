"""What a driver answers. Pure: options and peers in, a fragment of the desired state out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from netagent.model.address import Address, Prefix, host_prefix
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

    def prefixes(self) -> Iterator[Prefix]:
        """Yield what lies behind this host: its blocks, then its fixed addresses, which lie in nobody's block."""
        yield from (block.prefix for block in self.blocks)
        yield from (host_prefix(claim.address) for claim in self.fixed)


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
    """Whether networks of this driver get a number (VNI, GRE key) of their own in the cluster."""

    def overhead(self, network: Network) -> int:
        """Return the bytes that the driver takes from the underlay's MTU."""

    def device(self, network: Network, local: Host) -> str | None:
        """Return the name of the network's own tunnel device on ``local``, None if it has none."""

    def ways(self, network: Network, local: Host) -> tuple[str, ...]:
        """Return the interfaces that packets of peers may come in by, if other traffic comes in by them too.

        Empty where all comes by the network's own device.
        """

    def obstacle(self, network: Network, local: Host, peer: Host) -> str | None:
        """Return why ``local`` cannot reach ``peer``, in words that follow their names; None if it can."""

    def render(self, network: Network, local: Local, peers: Sequence[Peer]) -> State:
        """Return the tunnel device, routes, neighbours and forwarding entries that lead to ``peers``."""
