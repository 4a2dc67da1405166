"""Transactions that happen once, whatever becomes of the reply.

A transaction whose reply got lost may have been carried out, may not, or may still be on its way in some buffer. To
find out, every transaction also writes a token to a key that nobody else writes, its *slot*, on the condition that
the slot is as this process last saw it:

* the slot holds the token: it was carried out, at the slot's revision;
* else the slot is overwritten on the same condition: from then on it was not, and never will be.

Slots hang on the agent's lease, so none outlive it for long, and lie outside the prefix that is watched.
"""

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from netagent.errors import Unavailable
from netagent.reconcile.ports import Guard, Write
from netagent.store.etcd.client import ROUND_PAUSE_S, Deadline, EtcdClient, LeaseGone
from netagent.store.etcd.codec import compare_revision, encode_guard, encode_key, encode_put, encode_write
from netagent.store.etcd.lease import LeaseKeeper
from netagent.store.etcd.proto import etcd_pb2 as pb
from netagent.store.etcd.rpc import TXN

SLOT_PREFIX = "/netagent/transactions/"
SLOT_COUNT = 16
"""Transactions of one process that can be under way at the same time."""


@dataclass(slots=True, kw_only=True)
class _Slot:
    """A key for one transaction at a time, and what was last seen there; revision 0: absent."""

    key: bytes
    revision: int = 0
    token: bytes = b""

    def see(self, response: pb.TxnResponse) -> None:
        """Take over what a transaction found that did not happen."""
        found = response.responses[-1].response_range.kvs
        self.revision, self.token = (found[0].mod_revision, found[0].value) if found else (0, b"")


class Transactor:
    """Carries out transactions on ``client``, each at most once; its slots are below ``owner``, if it has a name."""

    def __init__(self, client: EtcdClient, lease: LeaseKeeper, *, owner: str = "") -> None:
        self._client = client
        self._lease = lease
        self._tokens = itertools.count(1)
        self._slots: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        process = f"{owner}/{uuid.uuid4().hex}" if owner else uuid.uuid4().hex
        for number in range(SLOT_COUNT):
            self._slots.put_nowait(_Slot(key=encode_key(f"{SLOT_PREFIX}{process}/{number}")))

    async def check(self, guards: Sequence[Guard]) -> int | None:
        """Return the store's revision if all ``guards`` hold, else None."""
        request = pb.TxnRequest(compare=[encode_guard(guard) for guard in guards])
        response = await self._client.call(TXN, request)
        return response.header.revision if response.succeeded else None

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int | None:
        """Carry out ``writes`` if all ``guards`` hold; return the new revision, or None if they do not.

        Raises Unavailable; with ``maybe_applied`` the outcome could not be learnt in time.
        """
        deadline = Deadline()
        try:
            async with asyncio.timeout(deadline.remaining()):
                slot = await self._slots.get()
        except TimeoutError:
            raise Unavailable("too many transactions wait for etcd", maybe_applied=False) from None
        try:
            return await self._transact(slot, guards, writes, deadline)
        finally:
            # Whatever the slot holds by now, its next user finds out: its first try fails and shows it.
            self._slots.put_nowait(slot)

    async def _transact(
        self, slot: _Slot, guards: Sequence[Guard], writes: Sequence[Write], deadline: Deadline
    ) -> int | None:
        token = b"%d" % next(self._tokens)
        while True:
            lease_id = await self._lease.lease_id(deadline)
            request = _guarded(slot, token, lease_id)
            request.compare.extend(encode_guard(guard) for guard in guards)
            request.success.extend(encode_write(write, lease_id) for write in writes)
            expected = slot.revision
            try:
                response = await self._client.call(TXN, request, deadline=deadline, repeatable=False)
            except LeaseGone:
                self._lease.lost(lease_id)
                continue
            except Unavailable as error:
                if not error.facts["maybe_applied"]:
                    raise
                self._client.tally.lost_replies += 1
                if await self._was_carried_out(slot, token, lease_id, deadline, error):
                    return slot.revision
                continue
            if response.succeeded:
                slot.revision = response.header.revision
                return slot.revision
            slot.see(response)
            if slot.revision == expected:
                return None

    async def _was_carried_out(
        self, slot: _Slot, token: bytes, lease_id: int, deadline: Deadline, cause: Unavailable
    ) -> bool:
        """Tell whether the transaction with ``token`` was carried out, and if not, see that it never will be."""
        request = _guarded(slot, token + b" void", lease_id)
        while True:
            try:
                # Repeatable: a second try finds the first's token and so knows: not carried out.
                response = await self._client.call(TXN, request, deadline=deadline)
                break
            except LeaseGone as error:
                raise self._unknown(cause) from error
            except Unavailable as error:
                if not deadline.remaining():
                    raise self._unknown(cause) from error
            await asyncio.sleep(deadline.remaining(ROUND_PAUSE_S))
        if response.succeeded:
            slot.revision = response.header.revision
            return False
        slot.see(response)
        if not slot.revision:
            # The slot went with the lease, and with it the answer.
            raise self._unknown(cause)
        return slot.token == token

    def _unknown(self, cause: Unavailable) -> Unavailable:
        self._client.tally.unknown_outcomes += 1
        return Unavailable(cause.message, hint=cause.hint, **{**cause.facts, "maybe_applied": True})


def _guarded(slot: _Slot, token: bytes, lease_id: int) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[compare_revision(slot.key, slot.revision)],
        success=[encode_put(slot.key, token, lease_id)],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=slot.key))],
    )
