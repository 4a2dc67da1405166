"""The agent's lease: keys bound to it go away some time after the agent does, and only then.

The lease is granted when first needed and kept alive every third of its time to live. When etcd has lost it (the
agent was cut off for too long, or somebody revoked it) a new one is granted and its users are told: what hung on the
old one is gone.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from netagent.errors import NetagentError, Unavailable
from netagent.store.etcd.client import Deadline, EtcdClient
from netagent.store.etcd.proto import etcd_pb2 as pb
from netagent.store.etcd.rpc import LEASE_GRANT, LEASE_KEEP_ALIVE

_log = logging.getLogger(__name__)


def _now() -> float:
    # Time asleep counts: the server's clock goes on while this machine is suspended.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseKeeper:
    """One lease of ``ttl_s`` seconds, renewed or replaced until ``close``.

    ``on_lost`` is called when etcd turns out not to know it, ``on_replaced`` once another one is there.
    """

    def __init__(
        self,
        client: EtcdClient,
        *,
        ttl_s: float,
        on_replaced: Callable[[], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._on_replaced = on_replaced
        self._on_lost = on_lost
        self._lease_id = 0
        self._was_granted = False
        self._is_closed = False
        self._expires_at = 0.0
        self._granting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether the lease certainly exists: reckoned from when the last answered renewal was *sent*."""
        return bool(self._lease_id) and _now() < self._expires_at

    @property
    def remaining_s(self) -> float:
        """For how many seconds more the lease certainly exists; 0 without one."""
        return max(0.0, self._expires_at - _now()) if self._lease_id else 0.0

    async def lease_id(self, deadline: Deadline) -> int:
        """Return the lease, granting one if there is none. Raises Unavailable."""
        if self._lease_id:
            return self._lease_id
        try:
            async with asyncio.timeout(deadline.remaining()), self._granting:
                if not self._lease_id:
                    await self._grant(deadline)
                return self._lease_id
        except TimeoutError:
            raise Unavailable("etcd grants no lease", maybe_applied=False) from None

    def lost(self, lease_id: int) -> None:
        """Note that etcd does not know ``lease_id``."""
        if lease_id == self._lease_id:
            _log.warning("etcd has lost our lease %x and what hung on it", lease_id)
            self._lease_id = 0
            self._on_lost()

    async def close(self) -> None:
        """Stop renewing. The lease ends by itself: a process that is back before it ends was never away to others."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _grant(self, deadline: Deadline) -> None:
        sent_at = _now()
        request = pb.LeaseGrantRequest(TTL=round(self._ttl_s))
        response = await self._client.call(LEASE_GRANT, request, deadline=deadline)
        self._lease_id = response.ID
        self._expires_at = sent_at + response.TTL
        if self._task is None and not self._is_closed:
            self._task = asyncio.create_task(self._keep_alive(), name="etcd lease")
        if self._was_granted:
            self._on_replaced()
        self._was_granted = True

    async def _keep_alive(self) -> None:
        pause = self._ttl_s / 3
        while True:
            await asyncio.sleep(pause)
            try:
                await self._renew()
                pause = self._ttl_s / 3
            except NetagentError as error:
                pause = self._ttl_s / 15
                _log.debug("lease not renewed: %s", error.message)

    async def _renew(self) -> None:
        if lease_id := self._lease_id:
            sent_at = _now()
            request = pb.LeaseKeepAliveRequest(ID=lease_id)
            response = await self._client.call(LEASE_KEEP_ALIVE, request)
            if response.TTL > 0:
                self._expires_at = sent_at + response.TTL
                return
            self.lost(lease_id)
        await self.lease_id(Deadline())
