"""Blocks and fixed addresses: who owns which part of a network's subnet."""

from dataclasses import dataclass
from enum import StrEnum

from netagent.model.address import Address, Prefix
from netagent.model.ids import EndpointId, HostId, NetworkId


class BlockState(StrEnum):
    """Peers route to a confirmed block; a draining one takes no new addresses."""

    CONFIRMED = "confirmed"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The part of a network's subnet that a host holds.

    The claim is permanent: losing contact with the store never frees it. ``epoch`` grows when an operator takes the
    block from its owner, so that an owner who returns can tell. ``own_address`` is the host's own address in it.
    ``prepared`` is that move of the network whose new way its owner has ready, ``moves`` the one that it has made.
    """

    network_id: NetworkId
    prefix: Prefix
    owner: HostId
    epoch: int
    own_address: Address | None
    state: BlockState = BlockState.CONFIRMED
    prepared: int = 0
    moves: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """Where it stands among a host's blocks, whatever order they were heard of in: by family, then address."""
        return self.prefix.version, int(self.prefix.network_address)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedAddress:
    """An address outside every block that one endpoint claims for itself (``--ip``)."""

    network_id: NetworkId
    address: Address
    owner: HostId
    epoch: int
    endpoint_id: EndpointId
