"""One call to an etcd cluster: on whichever endpoint answers, within bounded time, with a clear outcome.

A call that may be repeated goes on to the next endpoint after any failure. One that may not is sent at most once: a
failure before it was sent moves on, a failure after that is raised with ``maybe_applied=True``.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from netagent.errors import EnvironmentProblem, Exhausted, NetagentError, Unavailable
from netagent.reconcile.ports import StoreStatistics
from netagent.store.etcd.access import EtcdAccess
from netagent.store.etcd.handshake import refusal
from netagent.store.etcd.proto import etcd_pb2 as pb
from netagent.store.etcd.rpc import AUTHENTICATE, Request, Response, Rpc
from netagent.store.pin import ClusterPin, ForeignCluster

_log = logging.getLogger(__name__)

TOTAL_S = 5.0
"""Longest time of one operation, all endpoints and repetitions together."""
CALL_S = 3.0
CONNECT_S = 1.5
ROUND_PAUSE_S = 0.2
"""Between two rounds over all endpoints, for instance while the members elect a leader."""

_WRONG_CREDENTIALS = ("authentication failed", "revision of auth store is old", "user name is empty")


class LeaseGone(NetagentError):
    """The lease that the request names does not exist (any more); nothing was written."""


class RevisionGone(NetagentError):
    """The revision that is asked for is compacted away."""


class RevisionAhead(RevisionGone):
    """The revision that is asked for is none of this store's yet: it was another's."""


class NotLoggedIn(EnvironmentProblem):
    """etcd wants a token, or another one."""


class _AuthenticationIsOff(EnvironmentProblem):
    """etcd has users switched off and takes every call as it is."""


class Deadline:
    """The end of one operation."""

    def __init__(self, seconds: float = TOTAL_S) -> None:
        self._now = asyncio.get_running_loop().time
        self._end = self._now() + seconds

    def remaining(self, at_most: float = TOTAL_S) -> float:
        """Return the seconds left, at least 0."""
        return max(0.0, min(at_most, self._end - self._now()))


@dataclass(slots=True)
class Tally:
    """What is counted of one cluster: see ``StoreStatistics``. ``heard_at`` is the loop's time."""

    repeated_calls: int = 0
    lost_replies: int = 0
    unknown_outcomes: int = 0
    heard_at: float | None = None

    @property
    def statistics(self) -> StoreStatistics:
        """The counts of this moment."""
        return StoreStatistics(
            repeated_calls=self.repeated_calls,
            lost_replies=self.lost_replies,
            unknown_outcomes=self.unknown_outcomes,
            silent_s=None if self.heard_at is None else asyncio.get_running_loop().time() - self.heard_at,
        )


class _Connection:
    """A channel to one endpoint. After a failure it is retired: closed when its last user is done.

    A new channel resolves the name and connects at once, where the old one would sit out its back-off (up to 2
    minutes for names), and a peer that went away without a word is got round by a new connection only.
    """

    def __init__(self, access: EtcdAccess, endpoint: str) -> None:
        self.channel = access.open_channel(endpoint)
        self.users = 0
        self.is_retired = False

    async def ready(self, within: float) -> bool:
        """Connect if needed; tell whether it succeeded."""
        try:
            async with asyncio.timeout(within):
                while (state := self.channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                    if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                        return False
                    await self.channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True


class EtcdClient:
    """Calls to one cluster, which is that of ``pin`` if given. Nothing connects before the first call.

    Another cluster's answer counts as none. Nothing of ours is written there: every write is bound to a lease that
    only our cluster has.
    """

    def __init__(self, access: EtcdAccess, *, pin: ClusterPin | None = None) -> None:
        self.access = access
        self._pin = pin
        self.tally = Tally()
        self.is_connected = False
        self.cluster_id = ""
        self._preferred = 0
        self._connections: dict[str, _Connection] = {}
        self._needs_token = bool(access.user)
        self._token = ""
        self._is_closed = False

    @property
    def endpoint(self) -> str:
        """The endpoint that answered last."""
        return self.access.endpoints[self._preferred]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call."""
        # A member cut off from the others must say so rather than let us wait (clientv3.WithRequireLeader).
        require_leader = ("hasleader", "true")
        return (require_leader, ("token", self._token)) if self._token else (require_leader,)

    def forget_token(self) -> None:
        """Log in anew before the next call."""
        self._token = ""
        self._needs_token = bool(self.access.user)

    async def call(
        self,
        rpc: Rpc[Request, Response],
        request: Request,
        *,
        deadline: Deadline | None = None,
        repeatable: bool = True,
    ) -> Response:
        """Return the response to ``request``.

        Raises Unavailable within the deadline, with the fact ``maybe_applied``; LeaseGone, Exhausted or
        EnvironmentProblem if the cluster refuses.
        """
        deadline = deadline or Deadline()
        try:
            response = await self._call_any(rpc, request, deadline, repeatable)
        except Unavailable as error:
            self._note_contact(error)
            raise
        self._note_contact(None)
        self._note_cluster(f"{response.header.cluster_id:x}")
        return response

    async def close(self) -> None:
        """End all calls: they raise Unavailable."""
        self._is_closed = True
        self.is_connected = False
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            await connection.channel.close()

    async def _call_any(
        self, rpc: Rpc[Request, Response], request: Request, deadline: Deadline, repeatable: bool
    ) -> Response:
        is_repeated = False
        while True:
            was_sent = False
            for _ in self.access.endpoints:
                endpoint = self.endpoint
                self.tally.repeated_calls += is_repeated
                is_repeated = True
                try:
                    async with self._connected(endpoint, deadline) as channel:
                        response = await self._send(channel, rpc, request, deadline)
                        if self._pin is not None:
                            self._pin.check(f"{response.header.cluster_id:x}", f"etcd at {endpoint}")
                        return response
                except Unavailable as error:
                    failure = error
                if self.endpoint == endpoint:
                    self._preferred = (self._preferred + 1) % len(self.access.endpoints)
                if failure.facts["maybe_applied"]:
                    was_sent = True
                    if not repeatable:
                        raise failure
            # Where nothing answers, waiting does not help; where something does, it may be between two leaders.
            if isinstance(failure, ForeignCluster):
                raise failure
            if not was_sent or not deadline.remaining():
                raise self._unavailable(failure.facts["reason"], maybe_applied=False) from failure
            await asyncio.sleep(deadline.remaining(ROUND_PAUSE_S))

    @asynccontextmanager
    async def _connected(self, endpoint: str, deadline: Deadline) -> AsyncIterator[grpc.aio.Channel]:
        if self._is_closed:
            raise self._unavailable("the store is closed", maybe_applied=False)
        connection = self._connections.get(endpoint)
        if connection is None:
            connection = self._connections[endpoint] = _Connection(self.access, endpoint)
        connection.users += 1
        try:
            if not deadline.remaining() or not await connection.ready(deadline.remaining(CONNECT_S)):
                why = await self._refusal(connection, endpoint, deadline)
                raise self._unavailable(f"cannot connect to etcd at {endpoint}{why}", maybe_applied=False)
            yield connection.channel
        except Unavailable:
            connection.is_retired = True
            if self._connections.get(endpoint) is connection:
                del self._connections[endpoint]
            raise
        finally:
            connection.users -= 1
            if connection.is_retired and not connection.users:
                await connection.channel.close()

    async def _refusal(self, connection: _Connection, endpoint: str, deadline: Deadline) -> str:
        """Return why an endpoint that did answer was no good; one that is silent is left at once."""
        within_s = deadline.remaining(CONNECT_S)
        has_failed = connection.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if not self.access.is_tls or not within_s or not has_failed:
            return ""
        try:
            async with asyncio.timeout(within_s):
                why = await asyncio.to_thread(refusal, self.access, endpoint, within_s=within_s)
        except TimeoutError:
            return ""
        return why and f": {why}"

    async def _send(
        self, channel: grpc.aio.Channel, rpc: Rpc[Request, Response], request: Request, deadline: Deadline
    ) -> Response:
        try:
            await self._log_in(channel, deadline)
            return await self._exchange(channel, rpc, request, deadline)
        except NotLoggedIn:
            if not self.access.user:
                raise
        # Members forget their tokens when they restart, and all are void when users or roles change.
        self.forget_token()
        await self._log_in(channel, deadline)
        return await self._exchange(channel, rpc, request, deadline)

    async def _log_in(self, channel: grpc.aio.Channel, deadline: Deadline) -> None:
        if self._token or not self._needs_token:
            return
        request = pb.AuthenticateRequest(name=self.access.user, password=self.access.password)
        try:
            self._token = (await self._exchange(channel, AUTHENTICATE, request, deadline)).token
        except _AuthenticationIsOff:
            self._needs_token = False

    async def _exchange(
        self, channel: grpc.aio.Channel, rpc: Rpc[Request, Response], request: Request, deadline: Deadline
    ) -> Response:
        try:
            method = channel.unary_unary(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)
            return await method(request, timeout=deadline.remaining(CALL_S), metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            raise self._explained(rpc.path, error.code(), error.details() or "") from error
        except grpc.aio.UsageError as error:
            raise self._unavailable("the store is closed", maybe_applied=False) from error
        except asyncio.CancelledError:
            # Closing a channel raises this in the tasks of its calls; it is meant for us only if we are cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self._unavailable("the store was closed during a call", maybe_applied=True) from None

    def _explained(self, path: str, code: grpc.StatusCode, details: str) -> NetagentError:
        """Return the error for a status (etcd's own are listed in its api/v3rpc/rpctypes/error.go)."""
        user = self.access.user or "without a user"
        match code:
            case grpc.StatusCode.NOT_FOUND if "lease not found" in details:
                return LeaseGone(details)
            case grpc.StatusCode.OUT_OF_RANGE if "future revision" in details:
                return RevisionAhead(details)
            case grpc.StatusCode.OUT_OF_RANGE:
                return RevisionGone(details)
            case grpc.StatusCode.UNAUTHENTICATED:
                return NotLoggedIn(f"etcd refuses {user}: {details}", hint="check the store's user and password")
            case grpc.StatusCode.INVALID_ARGUMENT if any(text in details for text in _WRONG_CREDENTIALS):
                return NotLoggedIn(f"etcd refuses {user}: {details}", hint="check the store's user and password")
            case grpc.StatusCode.FAILED_PRECONDITION if "authentication is not enabled" in details:
                return _AuthenticationIsOff(details)
            case grpc.StatusCode.PERMISSION_DENIED:
                return EnvironmentProblem(
                    f"etcd denies {path} to {user}",
                    hint="grant its role readwrite on what docs/security.md lists; host rm takes the operator's",
                )
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "space exceeded" in details:
                return Exhausted(
                    f"etcd is full: {details}", hint="compact and defragment it, then: etcdctl alarm disarm"
                )
            case grpc.StatusCode.RESOURCE_EXHAUSTED if "too many requests" in details:
                return self._unavailable(details, maybe_applied=False)
            case (
                grpc.StatusCode.UNAVAILABLE
                | grpc.StatusCode.DEADLINE_EXCEEDED
                | grpc.StatusCode.CANCELLED
                | grpc.StatusCode.ABORTED
                | grpc.StatusCode.INTERNAL
                | grpc.StatusCode.UNKNOWN
            ):
                return self._unavailable(details, maybe_applied=True)
            case _:
                return EnvironmentProblem(f"etcd refuses {path}: {code.name}: {details}")

    def _unavailable(self, reason: str, *, maybe_applied: bool) -> Unavailable:
        return Unavailable(
            f"store {self.access} does not answer: {reason}",
            hint="see whether etcd runs there" + (" and that the certificates fit" if self.access.is_tls else ""),
            endpoints=self.access.endpoints,
            reason=reason,
            maybe_applied=maybe_applied,
        )

    def _note_contact(self, failure: Unavailable | None) -> None:
        if failure is None and not self.is_connected:
            _log.info("etcd answers at %s", self.endpoint)
        elif failure is not None and self.is_connected:
            _log.warning("%s", failure.message)
        self.is_connected = failure is None and not self._is_closed

    def _note_cluster(self, cluster_id: str) -> None:
        if self.cluster_id not in ("", cluster_id):
            _log.warning("%s is now cluster %s, was %s", self.access, cluster_id, self.cluster_id)
        self.cluster_id = cluster_id
