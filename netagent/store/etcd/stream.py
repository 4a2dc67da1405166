"""One watch stream to one etcd member, on a channel of its own, with bounded waits.

Hides three habits of grpc.aio: a cancelled ``read`` ends the whole stream, so one that takes too long is kept for the
next call; a stream that ended answers ``write`` with InvalidStateError, and ``read`` with CancelledError in the
reader's own task if its channel was closed; and a ``write`` under way does not hear that the stream was cancelled.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio

from netagent.errors import Unavailable
from netagent.store.etcd.client import EtcdClient
from netagent.store.etcd.proto import etcd_pb2 as pb

WATCH_PATH = "/etcdserverpb.Watch/Watch"
WRITE_S = 3.0

_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]"


class WatchStream:
    """Requests out and responses in; every failure is Unavailable."""

    def __init__(self, call: _Call, endpoint: str, closing: asyncio.Future[Any]) -> None:
        self._call = call
        self._endpoint = endpoint
        self._closing = closing
        self._reading: asyncio.Task[pb.WatchResponse] | None = None
        self._writing: asyncio.Task[None] | None = None

    async def write(self, request: pb.WatchRequest) -> None:
        """Send ``request``."""
        writing = self._writing = asyncio.ensure_future(self._call.write(request))
        await asyncio.wait({writing}, timeout=WRITE_S)
        if not writing.done() or writing.cancelled():
            writing.cancel()
            raise self._broken("cancelled" if writing.cancelled() else "it takes no request")
        if error := writing.exception():
            raise self._broken(error) from error

    async def read(self, *, within: float) -> pb.WatchResponse | None:
        """Return the next response, or None if there is none ``within`` so many seconds."""
        reading = self._reading or asyncio.ensure_future(self._read())
        self._reading = reading
        either: set[asyncio.Future[Any]] = {reading, self._closing}
        await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if self._closing.done():
            raise Unavailable("the store is closed")
        if not reading.done():
            return None
        self._reading = None
        if reading.cancelled():
            raise self._broken("cancelled")
        if error := reading.exception():
            raise self._broken(error) from error
        return reading.result()

    async def _read(self) -> pb.WatchResponse:
        response = await self._call.read()
        if not isinstance(response, pb.WatchResponse):
            raise EOFError("ended by the server")
        return response

    def end(self) -> None:
        """Give up what is under way."""
        self._call.cancel()
        for task in (self._reading, self._writing):
            if task is not None:
                task.cancel()

    def _broken(self, reason: object) -> Unavailable:
        details = reason.details() if isinstance(reason, grpc.aio.AioRpcError) else str(reason) or repr(reason)
        return Unavailable(f"watch at {self._endpoint} broke: {details}")


@asynccontextmanager
async def open_watch_stream(client: EtcdClient, closed: asyncio.Event) -> AsyncIterator[WatchStream]:
    """Open a stream to the endpoint that ``client`` found last; ``closed`` ends its reads."""
    channel = client.access.open_channel(client.endpoint)
    method: grpc.aio.StreamStreamMultiCallable[pb.WatchRequest, pb.WatchResponse] = channel.stream_stream(
        WATCH_PATH, pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString
    )
    closing = asyncio.ensure_future(closed.wait())
    stream = WatchStream(method(metadata=client.metadata), client.endpoint, closing)
    try:
        yield stream
    finally:
        closing.cancel()
        stream.end()
        await channel.close()
