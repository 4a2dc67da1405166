"""The Store on an etcd cluster."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Sequence

from netagent import failpoint
from netagent.reconcile.ports import Doubt, Guard, Listing, StoreEntry, StoreStatistics, WatchEvent, Write
from netagent.store.etcd.access import EtcdAccess
from netagent.store.etcd.client import EtcdClient
from netagent.store.etcd.codec import decode_entry, encode_key
from netagent.store.etcd.lease import LeaseKeeper
from netagent.store.etcd.proto import etcd_pb2 as pb
from netagent.store.etcd.rpc import RANGE
from netagent.store.etcd.transactor import Transactor
from netagent.store.etcd.watch import EtcdWatch, list_prefix
from netagent.store.pin import ClusterPin
from netagent.store.transaction import check_transaction

LEASE_TTL_S = 15.0


class EtcdStore:
    """A Store whose content is shared by all agents of a cluster.

    Made without touching the network, so that an agent starts while etcd is down. Every call ends within 5 seconds.
    With ``pin`` only that cluster's etcd is heard. Where etcd has users it needs what ``deploy/etcd-roles.sh`` grants
    to the host ``owner``.
    """

    def __init__(
        self, access: EtcdAccess, *, lease_ttl_s: float = LEASE_TTL_S, owner: str = "", pin: ClusterPin | None = None
    ) -> None:
        self._client = EtcdClient(access, pin=pin)
        self._lease_callbacks: list[Callable[[], None]] = []
        self._watches: weakref.WeakSet[EtcdWatch] = weakref.WeakSet()
        self._lease = LeaseKeeper(
            self._client, ttl_s=lease_ttl_s, on_replaced=self._tell_lease_replaced, on_lost=self._doubt_for_the_lease
        )
        self._transactor = Transactor(self._client, self._lease, owner=owner)
        self._closed = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the last contact succeeded."""
        return self._client.is_connected

    @property
    def is_lease_held(self) -> bool:
        """Whether leased keys of ours certainly exist still."""
        return self._lease.is_held

    @property
    def lease_remaining_s(self) -> float | None:
        """For how many seconds more leased keys of ours certainly exist."""
        return self._lease.remaining_s

    @property
    def statistics(self) -> StoreStatistics:
        """How it went so far."""
        return self._client.tally.statistics

    @property
    def cluster_id(self) -> str:
        """The cluster's own number in hex; empty before the first contact."""
        return self._client.cluster_id

    async def get(self, key: str) -> StoreEntry | None:
        """Return one entry, or None."""
        response = await self._client.call(RANGE, pb.RangeRequest(key=encode_key(key)))
        return decode_entry(response.kvs[0]) if response.kvs else None

    async def list(self, prefix: str) -> Listing:
        """Return all entries whose key begins with ``prefix``."""
        return await list_prefix(self._client, prefix)

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int | None:
        """Carry out ``writes`` if all ``guards`` hold; exactly once, even if the reply is lost."""
        check_transaction(guards, writes)
        if not writes:
            return await self._transactor.check(guards)
        failpoint.reach("store.transact")
        revision = await self._transactor.transact(guards, writes)
        if revision is not None:
            failpoint.reach("store.transact")
        return revision

    def watch(self, prefix: str) -> AsyncIterator[WatchEvent]:
        """Yield a Relisted, then the changes below ``prefix``; ends only when the store is closed."""
        watch = EtcdWatch(self._client, prefix, self._closed)
        self._watches.add(watch)
        return watch.events()

    def doubt(self, why: Doubt, reason: str) -> bool:
        """Let every watch list anew, as soon as etcd answers."""
        for watch in tuple(self._watches):
            watch.doubt(why, reason)
        return True

    def on_lease_replaced(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` each time all leased keys of ours are gone and a new lease is there to put them again.

        It is called in the event loop and must not block or raise.
        """
        self._lease_callbacks.append(callback)

    async def close(self) -> None:
        """End watches and calls; leased keys go when the lease ends, unless they are taken over before."""
        self._closed.set()
        await self._lease.close()
        await self._client.close()

    def _doubt_for_the_lease(self) -> None:
        # A lease that nobody ended goes with the store it was granted by: this one may be another.
        for watch in tuple(self._watches):
            watch.doubt(Doubt.LEASE, "our lease is not known there", is_urgent=False)

    def _tell_lease_replaced(self) -> None:
        for callback in self._lease_callbacks:
            callback()
