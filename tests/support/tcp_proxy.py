"""A TCP proxy on loopback that loses or holds back what passes, on command."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

Held: TypeAlias = tuple[asyncio.StreamWriter, bytes]


class TcpProxy:
    """Forwards connections to ``target_port`` of 127.0.0.1.

    ``swallow_replies``: what the server sends is dropped, what the client sends still arrives.
    ``hold_requests``: what the client sends is kept in ``held`` until ``deliver``, even when the client has gone.
    ``black_hole``: nothing passes in either direction, and nothing is closed. ``delay_s``: seconds that each
    piece of a reply is late. ``accepted`` counts connections.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.swallow_replies = False
        self.hold_requests = False
        self.black_hole = False
        self.delay_s = 0.0
        self.held: list[Held] = []
        self.accepted = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def deliver(self, held: Sequence[Held]) -> None:
        """Hand to the server what was held."""
        for writer, data in held:
            writer.write(data)
            await writer.drain()

    def drop_connections(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def half_close(self) -> None:
        """End the server's side of every connection in order; what the client sends goes on to the server."""
        self.swallow_replies = True
        for writer in self._writers:
            if writer.can_write_eof() and writer.get_extra_info("sockname")[1] == self.port:
                writer.write_eof()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.drop_connections()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(upstream_writer)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(
                self._forward_requests(reader, upstream_writer), self._forward_replies(upstream_reader, writer)
            )

    async def _forward_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.hold_requests:
                    self.held.append((writer, data))
                elif not self.black_hole:
                    writer.write(data)
                    await writer.drain()
        if not any(owner is writer for owner, _ in self.held):
            writer.transport.abort()

    async def _forward_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_s)
                if not self.swallow_replies and not self.black_hole and not writer.is_closing():
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def tcp_proxy(target_port: int) -> AsyncIterator[TcpProxy]:
    """A started proxy to ``target_port``."""
    proxy = TcpProxy(target_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
