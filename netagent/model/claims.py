"""Claims by network, owner and place, so that a question about one of these does not look at all of them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from netagent.model.address import Address, Prefix
from netagent.model.block import Block, FixedAddress
from netagent.model.ids import HostId, NetworkId
from netagent.model.persistent_map import PersistentMap

Claim: TypeAlias = Block | FixedAddress

_Key = TypeVar("_Key", HostId, NetworkId)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one host holds of one network: its blocks in their order (``Block.order``), and its fixed addresses."""

    blocks: tuple[Block, ...] = ()
    fixed: tuple[FixedAddress, ...] = ()


NOTHING = Holding()


@dataclass(frozen=True, slots=True)
class NetworkClaims:
    """All claims in one network. Never changes: ``updated`` returns another that shares with it what is the same.

    ``holdings`` has what each host holds, and no host that holds nothing. No two claims are at the same place.
    """

    holdings: PersistentMap[HostId, Holding] = field(default_factory=PersistentMap)
    _blocks: PersistentMap[tuple[int, int], Block] = field(default_factory=PersistentMap)
    _fixed: PersistentMap[Address, FixedAddress] = field(default_factory=PersistentMap)

    def updated(self, put: Iterable[Claim] = (), gone: Iterable[Claim] = ()) -> "NetworkClaims":
        """Return these without ``gone``, and then with ``put``; one whose place another takes is ``gone``."""
        new, old = tuple(put), frozenset(gone)
        by_owner = _grouped(new, attrgetter("owner"))
        held = {
            owner: _holding(self.holdings.get(owner, NOTHING), by_owner.get(owner, ()), old)
            for owner in by_owner.keys() | {claim.owner for claim in old}
        }
        return NetworkClaims(
            self.holdings.updated(
                {owner: holding for owner, holding in held.items() if holding != NOTHING},
                gone=[owner for owner, holding in held.items() if holding == NOTHING],
            ),
            self._blocks.updated(
                {claim.order: claim for claim in new if isinstance(claim, Block)},
                gone=[claim.order for claim in old if isinstance(claim, Block)],
            ),
            self._fixed.updated(
                {claim.address: claim for claim in new if isinstance(claim, FixedAddress)},
                gone=[claim.address for claim in old if isinstance(claim, FixedAddress)],
            ),
        )

    @property
    def blocks(self) -> Collection[Block]:
        """All hosts' blocks."""
        return self._blocks.values()

    @property
    def fixed(self) -> Collection[FixedAddress]:
        """All hosts' fixed addresses."""
        return self._fixed.values()

    def __iter__(self) -> Iterator[Claim]:
        yield from self.blocks
        yield from self.fixed

    def block_at(self, prefix: Prefix) -> Block | None:
        """Return the block with just this prefix, or None."""
        block = self._blocks.get((prefix.version, int(prefix.network_address)))
        return block if block is not None and block.prefix == prefix else None

    def fixed_at(self, address: Address) -> FixedAddress | None:
        """Return the claim of just this fixed address, or None."""
        return self._fixed.get(address)

    def has_place_of(self, claim: Claim) -> bool:
        """Tell whether a claim is at the place of this one."""
        return claim.order in self._blocks if isinstance(claim, Block) else claim.address in self._fixed


_NONE = NetworkClaims()


@dataclass(frozen=True, slots=True)
class Claims:
    """All claims, by network. Never changes, as ``NetworkClaims``."""

    networks: Mapping[NetworkId, NetworkClaims] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, claims: Iterable[Claim]) -> "Claims":
        """Return ``claims`` by network."""
        return cls().updated(claims)

    def updated(self, put: Iterable[Claim] = (), gone: Iterable[Claim] = ()) -> "Claims":
        """Return these without ``gone``, and then with ``put``; one whose place another takes is ``gone``."""
        by_network = attrgetter("network_id")
        new, old = _grouped(put, by_network), _grouped(gone, by_network)
        changed = {
            identity: self.in_network(identity).updated(new.get(identity, ()), old.get(identity, ()))
            for identity in new.keys() | old.keys()
        }
        return Claims({identity: each for identity, each in {**self.networks, **changed}.items() if each.holdings})

    def joined(self, other: "Claims") -> "Claims":
        """Return these and the ``other``, whose claims count where both have one at the same place."""
        found = dict(other.networks)
        for identity, mine in self.networks.items():
            theirs = found.get(identity, _NONE)
            # One store has a network, as a rule.
            found[identity] = theirs.updated(c for c in mine if not theirs.has_place_of(c)) if theirs.holdings else mine
        return Claims(found)

    def in_network(self, network_id: NetworkId) -> NetworkClaims:
        """Return all hosts' claims in a network."""
        return self.networks.get(network_id, _NONE)

    def held_by(self, host_id: HostId) -> Iterator[Holding]:
        """Yield what a host holds of each network, if anything."""
        for network in self.networks.values():
            if (holding := network.holdings.get(host_id)) is not None:
                yield holding

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks."""
        return tuple(block for network in self.networks.values() for block in network.blocks)

    @property
    def fixed(self) -> tuple[FixedAddress, ...]:
        """All fixed addresses."""
        return tuple(claim for network in self.networks.values() for claim in network.fixed)


def _holding(was: Holding, put: Iterable[Claim], gone: Collection[Claim]) -> Holding:
    """Return what a host holds after a change."""
    claims = [claim for claim in (*was.blocks, *was.fixed) if claim not in gone] if gone else [*was.blocks, *was.fixed]
    claims.extend(put)
    blocks = [claim for claim in claims if isinstance(claim, Block)]
    if len(blocks) > 1:
        blocks.sort(key=attrgetter("order"))
    return Holding(blocks=tuple(blocks), fixed=tuple(c for c in claims if isinstance(c, FixedAddress)))


def _grouped(claims: Iterable[Claim], key: Callable[[Claim], _Key]) -> dict[_Key, list[Claim]]:
    found: dict[_Key, list[Claim]] = {}
    for claim in claims:
        found.setdefault(key(claim), []).append(claim)
    return found
