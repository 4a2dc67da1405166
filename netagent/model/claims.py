"""Claims by network and owner, so that a question about one network or one host does not look at all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from netagent.model.address import Prefix
from netagent.model.block import Block, FixedAddress
from netagent.model.ids import HostId, NetworkId


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one host holds of one network: its blocks in their order (``Block.order``), and its fixed addresses."""

    blocks: tuple[Block, ...] = ()
    fixed: tuple[FixedAddress, ...] = ()


NOTHING = Holding()


class NetworkClaims:
    """All claims in one network."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.fixed: list[FixedAddress] = []
        self.holdings: Mapping[HostId, Holding] = {}
        """What each host holds, in the order in which the hosts were heard of."""
        self._by_place: dict[tuple[int, int], Block] = {}

    def arrange(self) -> None:
        """Work out ``holdings``, once all claims are there."""
        blocks: dict[HostId, list[Block]] = {}
        for block in self.blocks:
            blocks.setdefault(block.owner, []).append(block)
        fixed: dict[HostId, list[FixedAddress]] = {}
        for claim in self.fixed:
            fixed.setdefault(claim.owner, []).append(claim)
        self.holdings = {
            owner: Holding(
                blocks=tuple(held) if len(held) == 1 else tuple(sorted(held, key=attrgetter("order"))),
                fixed=tuple(fixed.get(owner, ())),
            )
            for owner, held in blocks.items()
        } | {owner: Holding(fixed=tuple(held)) for owner, held in fixed.items() if owner not in blocks}

    def block_at(self, prefix: Prefix) -> Block | None:
        """Return the block with just this prefix, or None."""
        if not self._by_place:
            self._by_place.update((block.order, block) for block in self.blocks)
        block = self._by_place.get((prefix.version, int(prefix.network_address)))
        return block if block is not None and block.prefix == prefix else None


class Claims:
    """The index of one snapshot's ``blocks`` and ``fixed``."""

    def __init__(self, blocks: Sequence[Block], fixed: Sequence[FixedAddress]) -> None:
        self.blocks, self.fixed = blocks, fixed
        self._networks: dict[NetworkId, NetworkClaims] = {}
        for block in blocks:
            self._network(block.network_id).blocks.append(block)
        for claim in fixed:
            self._network(claim.network_id).fixed.append(claim)
        for network in self._networks.values():
            network.arrange()

    def of(self, network_id: NetworkId) -> NetworkClaims:
        """Return the claims in one network."""
        return self._networks.get(network_id) or NetworkClaims()

    def _network(self, network_id: NetworkId) -> NetworkClaims:
        found = self._networks.get(network_id)
        if found is None:
            found = self._networks[network_id] = NetworkClaims()
        return found
