"""Keeps the store's picture of this host true: its record, its endpoints, its claims.

The same idea as for the kernel: what the store should hold for this host follows from the journal, the difference to
what it holds is written, and whatever could not be written is written when the store is back. So there is no queue
of changes to lose: an attach or detach while the store is away shows in the difference later.

Blocks and fixed addresses are given back here too: a fixed address when no endpoint has it any more, a block when its
network is being deleted and this host's kernel holds nothing of it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from operator import attrgetter

from netagent.errors import NetagentError
from netagent.ipam.allocate import block_around
from netagent.model.address import Address, Prefix
from netagent.model.block import Block, BlockState, FixedAddress
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import EndpointId
from netagent.model.network import Network, NetworkState, Scope
from netagent.model.snapshot import Snapshot
from netagent.reconcile.engine import Engine
from netagent.reconcile.ports import Absent, AbsentBelow, Delete, Guard, Put, StoreEntry, Unchanged, Write
from netagent.services.context import Knowledge
from netagent.services.keeping import Keeper
from netagent.services.network_transactions import finish_removal
from netagent.services.presence import Presence
from netagent.services.stores import StoreAccess, Stores
from netagent.store import keys
from netagent.store.endpoint_records import encode_endpoint
from netagent.store.host_records import decode_epoch
from netagent.store.journal import Journal
from netagent.store.network_records import encode_network
from netagent.store.records import encode_block, encode_fixed

log = logging.getLogger("netagent.publisher")

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 4.0
SETTLE_S = 0.05


class Publisher:
    """One per agent."""

    def __init__(
        self, knowledge: Knowledge, stores: Stores, journal: Journal, engine: Engine, presence: Presence
    ) -> None:
        self._knowledge = knowledge
        self._stores = stores
        self._journal = journal
        self._engine = engine
        self._wake = asyncio.Event()
        self._presence = presence
        self._agreed: dict[EndpointId, tuple[Endpoint, str, bytes]] = {}
        self._keeper = Keeper(journal, stores, knowledge.host.id)
        presence.on_lease_replaced = self.request

    def request(self) -> None:
        """Ask for the store to be brought up to date soon."""
        self._wake.set()

    async def run(self) -> None:
        """Bring the store up to date whenever asked, until cancelled."""
        retry_s: float | None = None
        while True:
            # Not wait_for: until Python 3.12 it may swallow the cancellation that ends this task.
            with suppress(TimeoutError):
                async with asyncio.timeout(retry_s):
                    await self._wake.wait()
            await asyncio.sleep(SETTLE_S)
            self._wake.clear()
            try:
                # The host's own store is served also while the cluster's is away, and the other way round.
                results = [await self._try_publish(access) for access in self._stores.all]
                error = next((error for error in results if error is not None), None)
                if error is not None:
                    raise error
            except NetagentError as error:
                if retry_s is None:
                    log.warning("the store does not have this host's latest records: %s", error)
                retry_s = min(2 * retry_s if retry_s else FIRST_RETRY_S, LAST_RETRY_S)
                self._knowledge.store_error = str(error)
            else:
                self._knowledge.store_error = ""
                if retry_s is not None:
                    log.info("the store has this host's records again")
                retry_s = None

    async def _try_publish(self, access: StoreAccess) -> NetagentError | None:
        try:
            await self._publish(access)
        except NetagentError as error:
            return error
        return None

    async def _publish(self, access: StoreAccess) -> None:
        self._keeper.keep()
        try:
            if access is self._stores.cluster:
                await self._presence.announce()
            for guards, writes in tuple(self._differences(access)):
                await access.commit(guards, writes)
        except NetagentError:
            self._presence.doubt()
            raise
        if access.view.drop_orphans():
            self._knowledge.invalidate()
            self._engine.request()
        self._keeper.disown()
        await self._drain(access)
        await self._leave_networks(access)

    def _differences(self, access: StoreAccess) -> Iterator[tuple[list[Guard], list[Write]]]:
        """Yield a transaction per record that differs. The guards make sure that it is still as the mirror says."""
        yield from self._endpoint_differences(access)
        yield from self._moves(access)
        yield from self._surplus_claims(access)
        yield from self._lost_blocks(access)
        yield from self._lost_claims(access)

    def _endpoint_differences(self, access: StoreAccess) -> Iterator[tuple[list[Guard], list[Write]]]:
        entries, snapshot = access.mirror.entries, self._knowledge.snapshot()
        self._forget_gone(snapshot.endpoints)
        wanted: set[str] = set()
        for endpoint in self._served(access, snapshot):
            # Of thousands of endpoints one or two have changed: only these are encoded.
            agreed = self._agreed.get(endpoint.id)
            if agreed is not None and agreed[0] is endpoint:
                entry = entries.get(agreed[1])
                if entry is not None and entry.value is agreed[2]:
                    wanted.add(agreed[1])
                    continue
            key = keys.endpoint_key(snapshot.host.id, endpoint.network_id, endpoint.id)
            wanted.add(key)
            entry = entries.get(key)
            difference = _put_if_different(key, entry, partial(encode_endpoint, endpoint))
            if difference:
                yield difference
            elif entry is not None:
                self._agreed[endpoint.id] = endpoint, key, entry.value
        for key in sorted(access.view.published - wanted):
            yield [Unchanged(key=key, revision=entries[key].revision)], [Delete(key=key)]

    def _served(self, access: StoreAccess, snapshot: Snapshot) -> list[Endpoint]:
        """Return the endpoints of this host that others are to know of by this store."""
        cut_off = snapshot.cut_off
        return [
            endpoint
            for network in self._networks_in_use(access, snapshot)
            for endpoint in snapshot.endpoints_in(network.id)
            if endpoint.in_kernel and endpoint.id not in cut_off
        ]

    def _networks_in_use(self, access: StoreAccess, snapshot: Snapshot) -> Iterator[Network]:
        """Yield the networks of this store that have endpoints here."""
        for identity, network in snapshot.networks.items():
            if identity in snapshot.endpoints.networks and self._stores.of(network) is access:
                yield network

    def _forget_gone(self, endpoints: Endpoints) -> None:
        if len(self._agreed) > len(endpoints):
            self._agreed = {identity: agreed for identity, agreed in self._agreed.items() if identity in endpoints}

    def _moves(self, access: StoreAccess) -> Iterator[tuple[list[Guard], list[Write]]]:
        """Yield what this host says of networks that are being moved, and the end of a move that all have made."""
        snapshot = self._knowledge.snapshot()
        for network in access.view.networks.values():
            if network.before is None:
                continue
            blocks = snapshot.blocks_in(network.id)
            is_made = (network.id, network.moves) in self._knowledge.made
            is_prepared = (network.id, network.moves) in self._knowledge.prepared
            for block in blocks if is_prepared else ():
                key = keys.block_key(network.id, block.prefix)
                entry = access.entry(key)
                if block.owner == snapshot.host.id and entry is not None:
                    moves = network.moves if is_made else block.moves
                    prepared = block.prepared if network.back else network.moves
                    said = encode_block(replace(block, prepared=prepared, moves=moves), entry.value)
                    if said != entry.value:
                        yield [Unchanged(key=key, revision=entry.revision)], [Put(key=key, value=said)]
            entry = access.entry(keys.network_key(network.name))
            if entry is not None and all(block.moves == network.moves for block in blocks):
                record = encode_network(replace(network, before=None, back=False), entry.value)
                yield [Unchanged(key=entry.key, revision=entry.revision)], [Put(key=entry.key, value=record)]

    def _lost_blocks(self, access: StoreAccess) -> Iterator[tuple[list[Guard], list[Write]]]:
        """Yield the claim anew of each own block that the store has lost, if its network is still there.

        A store that was restored from a backup would otherwise give the block to another host.
        """
        networks = access.view.networks
        for block in access.view.claims.blocks if access.view.orphaned else ():
            key = keys.block_key(block.network_id, block.prefix)
            network = networks.get(block.network_id)
            entry = access.entry(keys.network_key(network.name)) if network else None
            if key not in access.view.orphaned or block.owner != self._knowledge.host.id or entry is None:
                continue
            guards: list[Guard] = [
                Absent(key=key),
                AbsentBelow(prefix=keys.addresses_prefix(block.network_id, block.prefix)),
                Unchanged(key=entry.key, revision=entry.revision),
            ]
            # Claims were taken from hosts since: this is a new one, not the one that was taken.
            epoch = max(block.epoch, decode_epoch(access.entry(keys.EPOCH)) + 1)
            yield guards, [Put(key=key, value=encode_block(replace(block, epoch=epoch)))]

    def _lost_claims(self, access: StoreAccess) -> Iterator[tuple[list[Guard], list[Write]]]:
        """Yield the claim anew of each fixed address here that the store has lost and nobody else has."""
        snapshot = self._knowledge.snapshot()
        for network in self._networks_in_use(access, snapshot):
            entry = access.entry(keys.network_key(network.name))
            if network.scope is Scope.LOCAL or entry is None:
                continue
            own = snapshot.own_blocks_in(network.id)
            for endpoint in snapshot.endpoints_in(network.id):
                if endpoint.state not in (EndpointState.ATTACHED, EndpointState.DORMANT):
                    continue
                for address in (a.address for a in endpoint.addresses if a.fixed):
                    subnet = network.subnet_of(address)
                    if subnet is None or any(address in block.prefix for block in own):
                        continue
                    around = block_around(subnet, address)
                    if access.entry(keys.block_key(network.id, around)) is None:
                        yield from self._claim_anew(access, entry, endpoint, around, address)

    def _claim_anew(
        self, access: StoreAccess, network: StoreEntry, endpoint: Endpoint, around: Prefix, address: Address
    ) -> Iterator[tuple[list[Guard], list[Write]]]:
        """Yield the claim of one address, if the store has none; ``network`` is the record of its network."""
        key = keys.address_key(endpoint.network_id, around, address)
        if access.entry(key) is not None:
            return
        claim = FixedAddress(
            network_id=endpoint.network_id,
            address=address,
            owner=self._knowledge.host.id,
            epoch=decode_epoch(access.entry(keys.EPOCH)) + 1,
            endpoint_id=endpoint.id,
        )
        guards: list[Guard] = [
            Absent(key=key),
            Absent(key=keys.block_key(endpoint.network_id, around)),
            Unchanged(key=network.key, revision=network.revision),
        ]
        yield guards, [Put(key=key, value=encode_fixed(claim))]

    def _surplus_claims(self, access: StoreAccess) -> Iterator[tuple[list[Guard], list[Write]]]:
        """Yield the release of each fixed address of this host that no endpoint in the journal has."""
        snapshot = self._knowledge.snapshot()
        for claim in access.view.claims.fixed:
            endpoint = self._journal.endpoints.get(claim.endpoint_id)
            held = endpoint is not None and any(a.address == claim.address for a in endpoint.addresses)
            network = snapshot.networks.get(claim.network_id)
            subnet = network.subnet_of(claim.address) if network else None
            if claim.owner != snapshot.host.id or held or subnet is None:
                continue
            key = keys.address_key(claim.network_id, block_around(subnet, claim.address), claim.address)
            entry = access.entry(key)
            if entry is not None:
                yield [Unchanged(key=key, revision=entry.revision)], [Delete(key=key)]

    async def _drain(self, access: StoreAccess) -> None:
        """Give back this host's draining blocks that no endpoint needs; all drain if the host does."""
        host = self._knowledge.host.id
        is_drained = access is self._stores.cluster and access.entry(keys.drain_key(host)) is not None
        own = [block for holding in access.view.claims.held_by(host) for block in holding.blocks]
        for block in own:
            key = keys.block_key(block.network_id, block.prefix)
            entry = access.entry(key)
            network = access.view.networks.get(block.network_id)
            if entry is None or network is None or network.scope is Scope.LOCAL:
                continue
            guards = [Unchanged(key=key, revision=entry.revision)]
            if block.state is BlockState.CONFIRMED:
                if is_drained:
                    record = encode_block(replace(block, state=BlockState.DRAINING), entry.value)
                    await access.commit(guards, [Put(key=key, value=record)])
            elif self._is_needed(block, own):
                continue
            elif await access.commit(guards, [Delete(key=key)]):
                log.info("block %s of network %s is given back", block.prefix, network.name)
                self._journal.disown([key])

    def _is_needed(self, block: Block, own: Sequence[Block]) -> bool:
        """Tell whether an endpoint has an address in a block, or is reached by it alone.

        The peers' routes to a fixed address lead by an own address of this host, so it keeps a block of the family.
        """
        endpoints, version = self._journal.endpoints, block.prefix.version
        if endpoints.inhabit(block.network_id, block.prefix):
            return True
        beside = [b for b in own if b.network_id == block.network_id and b.prefix.version == version]
        if block != min(beside, key=attrgetter("order")) or any(
            b.state is not BlockState.DRAINING or endpoints.inhabit(b.network_id, b.prefix) for b in beside
        ):
            return False
        here = (e for e in endpoints.in_network(block.network_id) if e.in_kernel)
        return any(given.address.version == version for endpoint in here for given in endpoint.addresses)

    async def _leave_networks(self, access: StoreAccess) -> None:
        """Give back this host's blocks of networks that are being deleted, once the kernel holds nothing of them."""
        for network in tuple(access.view.networks.values()):
            in_use = any(e.in_kernel for e in self._knowledge.snapshot().endpoints_in(network.id))
            if network.state is not NetworkState.DELETING or in_use:
                continue
            if self._knowledge.snapshot().own_blocks_in(network.id):
                if not await self._engine.leave(network.id):
                    continue
                await self._release_blocks(access, network)
            if not self._knowledge.snapshot().blocks_in(network.id):
                await finish_removal(access, network)

    async def _release_blocks(self, access: StoreAccess, network: Network) -> None:
        for block in self._knowledge.snapshot().own_blocks_in(network.id):
            key = keys.block_key(network.id, block.prefix)
            entry = access.entry(key)
            if entry is not None:
                await access.commit([Unchanged(key=key, revision=entry.revision)], [Delete(key=key)])


def _put_if_different(
    key: str, entry: StoreEntry | None, encode: Callable[[bytes | None], bytes]
) -> tuple[list[Guard], list[Write]] | None:
    value = encode(entry.value if entry else None)
    if entry is None:
        return [Absent(key=key)], [Put(key=key, value=value)]
    if entry.value == value:
        return None
    return [Unchanged(key=key, revision=entry.revision)], [Put(key=key, value=value)]
