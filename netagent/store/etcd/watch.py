"""A watch without gap or repetition, whatever happens to the connection or the server.

It lists everything at revision R, then watches from R + 1; after a break it goes on from the last revision it was
*given*, never from one that a server merely mentioned. Where going on is impossible or doubtful (history compacted,
watch cancelled, another cluster, another history) it lists anew.

A store that was wiped and begun again, or restored from a backup, may keep its cluster's id, and its revision may have
overtaken ours by the time we are back. So before going on from R, etcd is asked what had changed last as of R: only our
own history answers what we were given.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise

from netagent.errors import NetagentError, Unavailable
from netagent.reconcile.ports import Changes, Doubt, Listing, Relisted, WatchEvent
from netagent.store.etcd.client import EtcdClient, RevisionAhead, RevisionGone
from netagent.store.etcd.codec import decode_entry, decode_event, decode_key, encode_prefix
from netagent.store.etcd.proto import etcd_pb2 as pb
from netagent.store.etcd.rpc import RANGE
from netagent.store.etcd.stream import WatchStream, open_watch_stream

_log = logging.getLogger(__name__)

QUIET_S = 30.0
"""After so long a silence the server is asked for a sign of life: a frozen one does not end a watch (etcd #8980)."""
ANSWER_S = 10.0
RELIST_S = 300.0
"""Many servers lose or repeat events in rare races (etcd #17529, #18089, #19179, #20221); listing anew heals that."""
LISTED_PER_S = 500
LONGEST_SPREAD_S = 10.0
"""Listing anew waits at random for as long as it takes to list that many entries a second, at most so long: what one
agent has lost all have, and the more there is to read, the more are they. Nobody waits for the first listing."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0


class _MustList(Exception):
    """Going on from the last revision is impossible or unsafe."""

    def __init__(self, why: Doubt, reason: str) -> None:
        super().__init__(reason)
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class _Last:
    """The last revision that changed something below the prefix, and what it put there; nothing if it only deleted."""

    revision: int = 0
    values: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, items: Iterable[tuple[str, int, bytes | None]]) -> "_Last":
        """Return the last of ``items``: keys, their revisions and values, None for a deletion."""
        found = tuple(items)
        revision = max((revision for _, revision, _ in found), default=0)
        return cls(revision=revision, values={k: v for k, r, v in found if r == revision and v is not None})


async def list_prefix(client: EtcdClient, prefix: str) -> Listing:
    """Return all entries whose key begins with ``prefix``, as a quorum of the members has them."""
    start, end = encode_prefix(prefix)
    response = await client.call(RANGE, pb.RangeRequest(key=start, range_end=end))
    return Listing(entries=tuple(decode_entry(kv) for kv in response.kvs), revision=response.header.revision)


class EtcdWatch:
    """One watch of ``prefix``; setting ``closed`` ends it."""

    def __init__(self, client: EtcdClient, prefix: str, closed: asyncio.Event) -> None:
        self._client = client
        self._prefix = prefix
        self._closed = closed
        self._now = asyncio.get_running_loop().time
        self._cluster_id = ""
        self._revision = 0
        self._relist_at = 0.0
        self._pause = 0.0
        self._spread = 0.0
        self._complaint = ""
        self._doubted: _MustList | None = None
        self._awake = asyncio.Event()
        self._stream: WatchStream | None = None
        self._last = _Last()

    def doubt(self, why: Doubt, reason: str, *, is_urgent: bool = True) -> None:
        """List anew, at once or as soon as it is this agent's turn."""
        self._doubted = _MustList(why, reason)
        if is_urgent:
            self._awake.set()
        if self._stream is not None:
            self._stream.end()

    async def events(self) -> AsyncGenerator[WatchEvent, None]:
        """Yield a Relisted, then all changes; wait while etcd is away."""
        why: Doubt | None = Doubt.START
        is_alone = False
        while not self._closed.is_set():
            began_at = self._now()
            try:
                if why is not None:
                    if not is_alone:
                        await self._wait(_between(0, self._spread))
                    yield await self._list(why)
                    why = None
                else:
                    await self._require_continuity()
                async with aclosing(self._follow()) as batches:
                    async for changes in batches:
                        yield changes
            except _MustList as doubt:
                _log.info("listing %s anew: %s", self._prefix, doubt)
                why, is_alone = doubt.why, doubt.why is Doubt.DUE
            except NetagentError as error:
                is_alone = False
                self._complain(error)
            self._client.tally.heard_at = None
            if self._now() - began_at > LONGEST_PAUSE_S:
                self._pause = 0.0
            await self._rest()
            if why is None and self._doubted is not None:
                why = self._doubted.why

    def _complain(self, error: NetagentError) -> None:
        # That etcd is away the client says once; that it will not have us must not go unseen.
        is_news = not isinstance(error, Unavailable) and str(error) != self._complaint
        self._complaint = str(error)
        _log.log(logging.WARNING if is_news else logging.DEBUG, "watch of %s interrupted: %s", self._prefix, error)

    async def _rest(self) -> None:
        """Wait before the next try: hardly at first, then longer and longer, and not all agents at once."""
        self._pause = min(LONGEST_PAUSE_S, _between(FIRST_PAUSE_S, max(FIRST_PAUSE_S, 3 * self._pause)))
        await self._wait(self._pause)

    async def _wait(self, seconds: float) -> None:
        """Wait; an urgent doubt ends it: somebody who has just heard the store waits for the listing."""
        waits = {asyncio.ensure_future(event.wait()) for event in (self._closed, self._awake)}
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _list(self, why: Doubt) -> Relisted:
        self._doubted = None
        self._awake.clear()
        listing = await list_prefix(self._client, self._prefix)
        self._cluster_id = self._client.cluster_id
        self._revision = listing.revision
        self._last = _Last.of((entry.key, entry.revision, entry.value) for entry in listing.entries)
        self._relist_at = self._now() + _between(0.8, 1.2) * RELIST_S
        self._spread = min(LONGEST_SPREAD_S, len(listing.entries) / LISTED_PER_S)
        return Relisted(listing=listing, why=why)

    async def _require_continuity(self) -> None:
        """See that the store is the one we know, by a read that a lagging or cut off member cannot answer."""
        start, end = encode_prefix(self._prefix)
        request = pb.RangeRequest(
            key=start, range_end=end, revision=self._revision, min_mod_revision=self._last.revision
        )
        try:
            response = await self._client.call(RANGE, request)
        except RevisionGone as error:
            why = Doubt.ANOTHER_STORE if isinstance(error, RevisionAhead) else Doubt.COMPACTED
            raise _MustList(why, f"the store cannot look at revision {self._revision}: {error}") from error
        self._require_cluster(response.header)
        if {decode_key(kv.key): kv.value for kv in response.kvs} != self._last.values:
            reason = f"at revision {self._revision} the store holds something else than what we were given"
            raise _MustList(Doubt.ANOTHER_STORE, reason)

    async def _follow(self) -> AsyncGenerator[Changes, None]:
        async with open_watch_stream(self._client, self._closed) as stream:
            self._stream = stream
            await stream.write(self._create_request())
            events: list[pb.Event] = []
            while True:
                if self._doubted is not None:
                    raise self._doubted
                response = await self._next(stream)
                self._client.tally.heard_at = self._now()
                self._require_sound(response)
                events.extend(response.events)
                if response.fragment:
                    continue
                if changes := self._advance(response, events):
                    yield changes
                events.clear()
                if self._now() > self._relist_at:
                    raise _MustList(Doubt.DUE, "it is time to compare")

    def _create_request(self) -> pb.WatchRequest:
        start, end = encode_prefix(self._prefix)
        return pb.WatchRequest(
            create_request=pb.WatchCreateRequest(
                key=start, range_end=end, start_revision=self._revision + 1, progress_notify=True, fragment=True
            )
        )

    async def _next(self, stream: WatchStream) -> pb.WatchResponse:
        response = await stream.read(within=QUIET_S)
        if response is None:
            await stream.write(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))
            response = await stream.read(within=ANSWER_S)
        if response is None:
            raise Unavailable(f"etcd at {self._client.endpoint} gives no sign of life")
        return response

    def _require_sound(self, response: pb.WatchResponse) -> None:
        # Whatever "created" says: a refusal comes as created and canceled in one.
        if response.compact_revision:
            reason = f"history before revision {response.compact_revision} is gone, and {self._revision} was ours"
            raise _MustList(Doubt.COMPACTED, reason)
        if response.canceled:
            self._client.forget_token()
            raise _MustList(Doubt.CANCELLED, f"etcd cancelled the watch: {response.cancel_reason}")
        self._require_cluster(response.header)
        if response.created and response.header.revision < self._revision:
            # It lags behind the others, or was restored from a backup: the read before the next try tells which.
            raise Unavailable(f"etcd at {self._client.endpoint} has not reached revision {self._revision}")

    def _require_cluster(self, header: pb.ResponseHeader) -> None:
        if (cluster_id := f"{header.cluster_id:x}") != self._cluster_id:
            raise _MustList(Doubt.ANOTHER_STORE, f"this is cluster {cluster_id}, not {self._cluster_id}")

    def _advance(self, response: pb.WatchResponse, events: list[pb.Event]) -> Changes | None:
        """Take a complete response; return what is new in it."""
        if not events:
            # The revision of "created" is the store's, with events before it still to come. So may be that of an
            # answer to a progress request (id -1) before 3.4.25 and 3.5.8 (etcd #15220). The server's own progress
            # notices are in order.
            if not response.created and response.watch_id >= 0:
                self._revision = max(self._revision, response.header.revision)
            return None
        changes = tuple(decode_event(event) for event in events if event.kv.mod_revision > self._revision)
        if any(later.revision < earlier.revision for earlier, later in pairwise(changes)):
            raise _MustList(Doubt.DISORDER, f"events after revision {self._revision} came in the wrong order")
        if changes:
            self._revision = changes[-1].revision
            self._last = _Last.of((change.key, change.revision, change.value) for change in changes)
        return Changes(changes=changes, revision=self._revision) if changes else None


def _between(low: float, high: float) -> float:
    return random.uniform(low, high)  # noqa: S311  # spreads load, guards nothing
