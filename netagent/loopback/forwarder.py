"""Forwards connections and datagrams from sockets that it was handed to containers. Needs and keeps no privilege.

Clients of ::1 are seen by the container with the address of its bridge.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import OrderedDict
from typing import Any

import msgspec

from netagent.loopback.control import MESSAGE_BYTES, SOCKETS_AT_ONCE, Command, Way
from netagent.unprivileged import become_nobody

_CHUNK = 65536
IDLE_S = 60.0
"""How long a client of UDP is remembered after its last datagram, either way; conntrack keeps such flows as long."""

CLIENTS_LIMIT = 1024
"""Clients of one UDP port that are remembered; beyond it the one that was idle longest is forgotten."""


def main() -> None:
    """Serve the control socket that is standard input until its other end is closed."""
    control = socket.socket(fileno=os.dup(0))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(_serve(control))


async def _serve(control: socket.socket) -> None:
    forwarder = Forwarder()
    become_nobody()
    control.setblocking(False)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def receive() -> None:
        data, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, SOCKETS_AT_ONCE)
        if not data:
            ended.set()
            return
        command = msgspec.json.decode(data, type=Command)
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        forwarder.change(command, sockets)
        control.send(b"{}")

    loop.add_reader(control, receive)
    await ended.wait()
    sys.stdout.flush()
    os._exit(0)


class Forwarder:
    """The ways that are open, each with its socket and the task that serves it."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], tuple[asyncio.Task[None], socket.socket]] = {}

    def change(self, command: Command, sockets: list[socket.socket]) -> None:
        """Close and open what ``command`` says; a port is free for others when this returns."""
        for key in command.closed:
            if key in self._open:
                task, listening = self._open.pop(key)
                asyncio.get_running_loop().remove_reader(listening)
                listening.close()
                task.cancel()
        for way, listening in zip(command.opened, sockets, strict=True):
            listening.setblocking(False)
            serve = _serve_tcp if way.protocol == "tcp" else _serve_udp
            task = asyncio.get_running_loop().create_task(serve(way, listening))
            self._open[way.protocol, way.port] = task, listening


async def _serve_tcp(way: Way, listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as connections:
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
            except OSError:
                # Out of descriptors, or the client is gone already.
                await asyncio.sleep(0.05)
                continue
            connections.create_task(_forward(way, client))


async def _forward(way: Way, client: socket.socket) -> None:
    """Join one client with the container until both sides have said all."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in way.target else socket.AF_INET
    with client, socket.socket(family, socket.SOCK_STREAM) as server, contextlib.suppress(OSError):
        for each in (client, server):
            each.setblocking(False)
        await loop.sock_connect(server, (way.target, way.target_port))
        await asyncio.gather(_pump(client, server), _pump(server, client))


async def _pump(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, _CHUNK):
            await loop.sock_sendall(target, data)
    finally:
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


async def _serve_udp(way: Way, listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    clients: OrderedDict[Any, _Client] = OrderedDict()
    try:
        while True:
            with contextlib.suppress(OSError):
                data, address = await loop.sock_recvfrom(listening, _CHUNK)
                if address not in clients:
                    clients[address] = _Client(way, listening, address)
                clients.move_to_end(address)
                clients[address].send(data)
            _forget(clients, loop.time())
    finally:
        for client in clients.values():
            client.close()


def _forget(clients: "OrderedDict[Any, _Client]", now: float) -> None:
    while clients and (len(clients) > CLIENTS_LIMIT or next(iter(clients.values())).last < now - IDLE_S):
        clients.popitem(last=False)[1].close()


class _Client:
    """One client of a UDP port, with a socket of its own towards the container."""

    def __init__(self, way: Way, listening: socket.socket, address: Any) -> None:
        self._listening, self._address = listening, address
        self._server = socket.socket(socket.AF_INET6 if ":" in way.target else socket.AF_INET, socket.SOCK_DGRAM)
        self._server.setblocking(False)
        self._server.connect((way.target, way.target_port))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._server, self._answer)
        self.last = self._loop.time()

    def send(self, data: bytes) -> None:
        self.last = self._loop.time()
        self._server.send(data)

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            data = self._server.recv(_CHUNK)
            self.last = self._loop.time()
            self._listening.sendto(data, self._address)

    def close(self) -> None:
        self._loop.remove_reader(self._server)
        self._server.close()
