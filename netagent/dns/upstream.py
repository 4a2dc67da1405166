"""Queries for other names, put to the nameservers of the host.

The first server is asked at once, each further one a little later or as soon as one has failed, and the first good
reply wins: a dead server costs ``STAGGER_S`` once and is asked last for a while. Sockets are connected and have a
random port, replies must repeat id and question, and what does not is passed over until the time is up, so that a
forger has to guess both (RFC 5452). A client gives up after 5 s, so the answer, if only SERVFAIL, comes before.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from netagent.dns.message import (
    TCP_SIZE,
    Query,
    Rcode,
    encode_reply,
    is_reply_to,
    rcode_of,
    truncated,
    with_id,
)
from netagent.dns.resolv import SERVERS_USED, parse_resolv_conf

log = logging.getLogger("netagent.dns")

TOTAL_S = 3.5
STAGGER_S = 0.25
RESEND_S = 1.0
SHUNNED_S = 10.0
"""How long a server that did not answer is asked after the others."""
LOOK_EVERY_S = 1.0
"""How old knowledge of ``resolv.conf`` may be."""
MOST_AT_ONCE = 256
MOST_PER_CLIENT = 64

_Key = TypeVar("_Key")
_PORT = 53
_FINAL = (Rcode.NOERROR, Rcode.NXDOMAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who asks. ``is_host``: perhaps the host itself. ``servers`` are asked for it instead of the host's, if any."""

    address: str
    is_host: bool = False
    servers: tuple[str, ...] = ()


class Upstream:
    """The nameservers that ``resolv_conf`` names, followed while the file changes."""

    def __init__(self, resolv_conf: Path) -> None:
        self._resolv_conf = resolv_conf
        self._servers: tuple[str, ...] = ()
        self._stamp: tuple[int, int] | None = None
        self._looked_s = 0.0
        self._shunned: dict[str, float] = {}
        self._clients: Counter[str] = Counter()
        self._questions: Counter[bytes] = Counter()

    async def resolve(self, packet: bytes, query: Query, client: Client, *, limit: int, own: frozenset[str]) -> bytes:
        """Return the reply to ``packet``, which holds ``query``; SERVFAIL if no server gives one in time.

        ``limit`` is what fits into the way back. ``own`` are the addresses that we answer on: they are not asked, and
        a query that comes from the host while the same one is under way is ours, come back through the host's
        resolver. It is refused, which ends the loop.
        """
        question = query.question.lower()
        is_loop = client.is_host and self._questions[question] > 0
        is_busy = self._clients[client.address] >= MOST_PER_CLIENT or self._clients.total() >= MOST_AT_ONCE
        if is_loop or is_busy:
            return encode_reply(query, Rcode.REFUSED)
        with _counted(self._clients, client.address), _counted(self._questions, question):
            try:
                async with asyncio.timeout(TOTAL_S):
                    servers = self.servers(own, client.servers)
                    reply = await self._ask_all(packet, query, servers, tcp=limit == TCP_SIZE)
            except TimeoutError:
                reply = None
        if reply is None:
            return encode_reply(query, Rcode.SERVFAIL)
        return with_id(reply, query.id) if len(reply) <= limit else truncated(query)

    def servers(self, own: frozenset[str], chosen: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the servers to ask, those that did not answer of late last: ``chosen`` ones, else the host's."""
        now = time.monotonic()
        if now - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now
            self._look()
        usable = [server for server in chosen or self._servers if server not in own][:SERVERS_USED]
        return tuple(sorted(usable, key=lambda server: self._shunned.get(server, 0.0) > now))

    def _look(self) -> None:
        try:
            status = self._resolv_conf.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            text = self._resolv_conf.read_text(errors="replace")
        except OSError as error:
            if self._servers or self._stamp is None:
                log.warning("%s cannot be read: %s; names outside are not resolved", self._resolv_conf, error)
            self._stamp, self._servers = (0, 0), ()
            return
        self._servers = parse_resolv_conf(text).nameservers
        if not self._servers:
            log.warning("%s names no nameserver; names outside are not resolved", self._resolv_conf)

    async def _ask_all(self, packet: bytes, query: Query, servers: tuple[str, ...], *, tcp: bool) -> bytes | None:
        """Return the first good reply, else the last bad one, None for none at all."""
        waiting = list(servers)
        asked: set[asyncio.Task[bytes | None]] = set()
        bad: bytes | None = None
        try:
            while waiting or asked:
                if waiting:
                    asked.add(asyncio.create_task(self._ask(waiting.pop(0), packet, query, tcp=tcp)))
                done, asked = await asyncio.wait(
                    asked, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    reply = task.result()
                    if reply is not None and rcode_of(reply) in _FINAL:
                        return reply
                    bad = reply or bad
        finally:
            for task in asked:
                task.cancel()
        return bad

    async def _ask(self, server: str, packet: bytes, query: Query, *, tcp: bool) -> bytes | None:
        """Return one server's reply, None if it cannot be reached."""
        begun = time.monotonic()
        reply: bytes | None = None
        try:
            reply = await (_ask_tcp if tcp else _ask_udp)(server, packet, query)
        except (OSError, EOFError) as error:
            log.debug("nameserver %s: %s", server, error)
        finally:
            now = time.monotonic()
            if reply is not None:
                self._shunned.pop(server, None)
            elif now - begun >= STAGGER_S:
                self._shunned[server] = now + SHUNNED_S
        return reply


@contextmanager
def _counted(counter: Counter[_Key], key: _Key) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


def _open(server: str, kind: socket.SocketKind) -> tuple[socket.socket, tuple[Any, ...]]:
    """Return a socket for ``server`` and its address; a zone like ``%eth0`` becomes an interface's index."""
    ((family, _, _, _, address),) = socket.getaddrinfo(server, _PORT, type=kind, flags=socket.AI_NUMERICHOST)
    opened = socket.socket(family, kind)
    opened.setblocking(False)
    return opened, address


async def _ask_udp(server: str, packet: bytes, query: Query) -> bytes:
    loop = asyncio.get_running_loop()
    asking, address = _open(server, socket.SOCK_DGRAM)
    with asking:
        asking.connect(address)
        identity = secrets.randbits(16)
        while True:
            await loop.sock_sendall(asking, with_id(packet, identity))
            try:
                async with asyncio.timeout(RESEND_S):
                    while not is_reply_to(query, identity, reply := await loop.sock_recv(asking, TCP_SIZE)):
                        pass
                return reply
            except TimeoutError:
                continue


async def _ask_tcp(server: str, packet: bytes, query: Query) -> bytes:
    asking, address = _open(server, socket.SOCK_STREAM)
    with asking:
        await asyncio.get_running_loop().sock_connect(asking, address)
        reader, writer = await asyncio.open_connection(sock=asking)
        try:
            identity = secrets.randbits(16)
            writer.write(len(packet).to_bytes(2, "big") + with_id(packet, identity))
            reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        finally:
            writer.close()
    if not is_reply_to(query, identity, reply):
        raise OSError(f"{server} answered something else")
    return reply
