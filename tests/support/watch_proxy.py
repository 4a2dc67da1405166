"""A gRPC proxy before a real etcd that passes calls on as they are, and lies about what is watched, on command."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from netagent.store.etcd.proto import etcd_pb2 as pb
from netagent.store.etcd.stream import WATCH_PATH

Told = Callable[[pb.WatchResponse], Iterable[pb.WatchResponse]]


class WatchProxy(grpc.GenericRpcHandler):
    """Serves on ``port`` of 127.0.0.1.

    ``tell`` returns what is told for each response of a watch; ``streams`` counts watches. ``created`` is set once one
    is there: from then on each change comes in a response of its own. A keep-alive with one request and one response
    looks like any other call.
    """

    def __init__(self, target_port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{target_port}")
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.tell: Told = lambda response: (response,)
        self.streams = 0
        self.created = asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = handler_call_details.method
        if path == WATCH_PATH:
            return grpc.stream_stream_rpc_method_handler(
                self._watch, pb.WatchRequest.FromString, pb.WatchResponse.SerializeToString
            )
        call = self._channel.unary_unary(path)

        async def forward(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            try:
                return await call(request, metadata=_own(context))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")

        return grpc.unary_unary_rpc_method_handler(forward)

    async def _watch(
        self,
        requests: AsyncIterator[pb.WatchRequest],
        context: grpc.aio.ServicerContext[pb.WatchRequest, pb.WatchResponse],
    ) -> AsyncIterator[pb.WatchResponse]:
        self.streams += 1
        method: grpc.aio.StreamStreamMultiCallable[pb.WatchRequest, pb.WatchResponse] = self._channel.stream_stream(
            WATCH_PATH, pb.WatchRequest.SerializeToString, pb.WatchResponse.FromString
        )
        call = method(metadata=_own(context))

        async def forward() -> None:
            async for request in requests:
                await call.write(request)

        forwarding = asyncio.ensure_future(forward())
        try:
            async for response in call:
                for told in self.tell(response):
                    yield told
                if response.created:
                    self.created.set()
        finally:
            forwarding.cancel()
            call.cancel()

    async def start(self) -> None:
        await self._server.start()

    async def close(self) -> None:
        await self._server.stop(None)
        await self._channel.close()


def _own(context: grpc.aio.ServicerContext[Any, Any]) -> tuple[tuple[str, Any], ...]:
    """Return the metadata of a call that its caller chose."""
    return tuple((k, v) for k, v in context.invocation_metadata() or () if k in ("hasleader", "token"))


@asynccontextmanager
async def watch_proxy(target_port: int) -> AsyncIterator[WatchProxy]:
    """A started proxy to ``target_port``."""
    proxy = WatchProxy(target_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
