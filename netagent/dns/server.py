"""The DNS process: queries on the gateway addresses, the agent on the control socket. Sockets only."""

import asyncio
import logging
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from netagent import __version__
from netagent.dns.answer import answer
from netagent.dns.control import (
    PROTOCOL,
    Answer,
    Ask,
    Done,
    Hello,
    Listen,
    Quit,
    Request,
    Sync,
    decode_request,
    encode_frame,
    take_frames,
)
from netagent.dns.message import TCP_SIZE, NotAQuery, parse_query
from netagent.dns.upstream import Client, Upstream
from netagent.dns.zone import Zones

log = logging.getLogger("netagent.dns")

BATCH = 32
"""Queries answered in a row before other sockets have their turn."""
IDLE_S = 5.0
"""What a TCP client may take for one query, and for taking one reply."""
MOST_CONNECTIONS = 256
MOST_CONNECTIONS_PER_CLIENT = 16

_PACKET = 4096
_KEPT_REPLIES = 8192
_KEPT_SIZE = 300
"""Bytes of the largest query whose reply is kept: more than a name, its question and options need."""
_CONTROL_READ = 1 << 20
_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid (unix(7))."""


class Server:
    """All listeners of this process and what they answer from. ``control`` listens for the agent."""

    def __init__(self, control: socket.socket, zones: Zones, upstream: Upstream) -> None:
        self._control = control
        self._zones = zones
        self._upstream = upstream
        self._agent_uid = os.getuid()
        self._listeners: dict[str, _Listener] = {}
        self._replies: dict[tuple[bytes, str, str, bool], bytes] = {}
        self._has_shuffled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until an agent says Quit."""
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control, self._accept_agent)
        await self._stopping.wait()
        loop.remove_reader(self._control)
        for listener in self._listeners.values():
            listener.close()
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answer(self, packet: bytes, listener: str, source: str, *, tcp: bool) -> "bytes | _Forward | None":
        """Return the reply to a packet, how to get it from others, or None if there is to be none."""
        key = (packet[2:], listener, source, tcp)
        if (known := self._replies.get(key)) is not None:
            return packet[:2] + known
        self._has_shuffled = False
        reply = self._decide(packet, listener, source, tcp=tcp)
        if isinstance(reply, bytes) and not self._has_shuffled and len(packet) <= _KEPT_SIZE:
            if len(self._replies) >= _KEPT_REPLIES:
                self._replies.clear()
            self._replies[key] = reply[2:]
        return reply

    def _decide(self, packet: bytes, listener: str, source: str, *, tcp: bool) -> "bytes | _Forward | None":
        view = self._zones.view(listener, source)
        if view is None:
            return None
        try:
            query = parse_query(packet)
        except NotAQuery as other:
            return other.reply
        limit = TCP_SIZE if tcp else query.udp_limit
        reply = answer(query, view, limit=limit, shuffle=self._shuffle)
        if reply is not None:
            return reply
        client = Client(address=source, is_host=view.is_host, servers=view.servers)
        return self._upstream.resolve(packet, query, client, limit=limit, own=self._zones.addresses)

    def _shuffle(self, addresses: list[bytes]) -> None:
        self._has_shuffled = True
        random.shuffle(addresses)

    # The agent

    def _accept_agent(self) -> None:
        try:
            agent, _ = self._control.accept()
        except OSError as error:
            log.warning("control socket: %s", error)
            return
        _, uid, _ = _CREDENTIALS.unpack(agent.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid != self._agent_uid:
            agent.close()
            return
        self.spawn(self._serve_agent(agent))

    async def _serve_agent(self, agent: socket.socket) -> None:
        """Carry out what one agent asks until it goes; then all stays as it is."""
        loop = asyncio.get_running_loop()
        buffer, passed = bytearray(), list[int]()
        with agent:
            agent.setblocking(False)
            try:
                hello = Hello(protocol=PROTOCOL, version=__version__, pid=os.getpid())
                await loop.sock_sendall(agent, encode_frame(hello))
                while await _receive(agent, buffer, passed):
                    for body in take_frames(buffer):
                        done = await self._carry_out(decode_request(body), passed)
                        await loop.sock_sendall(agent, encode_frame(done))
            except (OSError, ValueError, msgspec.MsgspecError) as error:
                log.warning("the agent's connection ended: %s", error)
            finally:
                for descriptor in passed:
                    os.close(descriptor)

    async def _carry_out(self, request: Request, passed: list[int]) -> Done | Answer:
        match request:
            case Sync():
                self.take_over(request)
            case Listen():
                for address in request.addresses:
                    udp, tcp = socket.socket(fileno=passed.pop(0)), socket.socket(fileno=passed.pop(0))
                    await self._listen(address, udp, tcp)
            case Ask():
                reply = self.answer(request.query, request.listener, request.source, tcp=True)
                return Answer(reply=(reply if isinstance(reply, bytes) else await reply) if reply is not None else b"")
            case Quit():
                self._stopping.set()
        return Done(missing=tuple(sorted(self._zones.addresses - self._listeners.keys())))

    def take_over(self, sync: Sync) -> None:
        """Answer from what the agent says from now on."""
        zones = Zones() if sync.reset else self._zones
        zones.set_networks(sync.networks, private=sync.private, own=sync.own)
        for identity in sync.drop:
            zones.drop(identity)
        for record in sync.put:
            zones.put(record)
        self._zones = zones
        self._replies.clear()
        for address in self._listeners.keys() - zones.addresses:
            self._listeners.pop(address).close()

    async def _listen(self, address: str, udp: socket.socket, tcp: socket.socket) -> None:
        if address in self._listeners or address not in self._zones.addresses:
            udp.close()
            tcp.close()
            return
        self._listeners[address] = listener = _Listener(self, address, udp)
        await listener.take_connections(tcp)
        log.info("answering on %s", address)


async def _receive(agent: socket.socket, buffer: bytearray, passed: list[int]) -> bool:
    """Add what has come from the agent, bytes and descriptors; False at the end of the connection."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(agent, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(agent)
    data, descriptors, _, _ = socket.recv_fds(agent, _CONTROL_READ, 256)
    passed += descriptors
    buffer += data
    return bool(data)


_Forward = Coroutine[Any, Any, bytes]


class _Listener:
    """One gateway address: its UDP and its TCP socket, both bound by the agent."""

    def __init__(self, server: Server, address: str, udp: socket.socket) -> None:
        self._server = server
        self._address = address
        self._udp = udp
        self._udp.setblocking(False)
        self._acceptor: asyncio.Server | None = None
        self._clients: Counter[str] = Counter()
        asyncio.get_running_loop().add_reader(udp, self._read)

    def close(self) -> None:
        """Stop answering here. A reply under way is lost; a TCP connection ends by itself, its source being unknown."""
        asyncio.get_running_loop().remove_reader(self._udp)
        self._udp.close()
        if self._acceptor is not None:
            self._acceptor.close()

    def _read(self) -> None:
        for _ in range(BATCH):
            try:
                packet, source = self._udp.recvfrom(_PACKET)
            except BlockingIOError:
                return
            except OSError as error:
                # An ICMP error that an earlier reply caused; the socket is none the worse.
                log.debug("%s: %s", self._address, error)
                continue
            reply = self._server.answer(packet, self._address, source[0], tcp=False)
            if isinstance(reply, bytes):
                self._send(reply, source)
            elif reply is not None:
                self._server.spawn(self._send_later(reply, source))

    async def _send_later(self, reply: _Forward, source: tuple[Any, ...]) -> None:
        self._send(await reply, source)

    def _send(self, reply: bytes, source: tuple[Any, ...]) -> None:
        with suppress(OSError):  # The client is gone or we are closed: it will ask again.
            self._udp.sendto(reply, source)

    async def take_connections(self, tcp: socket.socket) -> None:
        """Answer on ``tcp``, a bound socket, too."""
        self._acceptor = await asyncio.start_server(self._serve, sock=tcp)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = writer.get_extra_info("peername")[0]
        crowded = self._clients.total() >= MOST_CONNECTIONS or self._clients[source] >= MOST_CONNECTIONS_PER_CLIENT
        self._clients[source] += 1
        try:
            while not crowded:
                async with asyncio.timeout(IDLE_S):
                    packet = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                reply = self._server.answer(packet, self._address, source, tcp=True)
                if reply is None:
                    break
                reply = reply if isinstance(reply, bytes) else await reply
                writer.write(len(reply).to_bytes(2, "big") + reply)
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self._clients[source] -= 1
            if not self._clients[source]:
                del self._clients[source]
            writer.transport.abort() if crowded else writer.close()
