"""The agent's side of the DNS process: starts it or finds it running, gives it sockets, tells it names.

The process is started in a session of its own, with a control socket that is listening already, so that an agent can
connect before the process has begun. Sockets on port 53 are bound here, with IP_FREEBIND because the bridge may come
later, and passed over: the process itself needs no privilege.
"""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from netagent import __version__, failpoint
from netagent.dns.channel import Channel
from netagent.dns.control import (
    PROTOCOL,
    SOCKETS_AT_ONCE,
    Answer,
    Ask,
    Done,
    Hello,
    Listen,
    NameRecord,
    NetworkRecord,
    Quit,
    Sync,
)
from netagent.errors import Unavailable

log = logging.getLogger("netagent.dns")

ANSWER_WITHIN_S = 5.0
_PORT = 53
_BACKLOG = 128
_QUEUE = 4 << 20
"""Bytes of questions that may wait, some thousands: the default holds a few hundred, and loses more on a busy host."""
_SO_RCVBUFFORCE = 33
"""include/uapi/asm-generic/socket.h"""
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
"""include/uapi/linux/in.h and in6.h; Python has no names for them."""
_FAILURES = (OSError, EOFError, TimeoutError, ValueError, msgspec.MsgspecError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Who may ask what: the fields of ``control.Sync``."""

    networks: tuple[NetworkRecord, ...] = ()
    private: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


class NameServer:
    """One per agent. ``path`` is the control socket; beside it lies ``dns.pid``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._channel: Channel | None = None
        self._told: dict[str, NameRecord] = {}
        self._scope: Scope | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._unbound: frozenset[str] = frozenset()
        self._has_reset = False
        self._lost = asyncio.Event()

    async def lost(self) -> None:
        """Wait until the process that was told last is gone."""
        await self._lost.wait()

    async def ask(self, query: bytes, listener: str, source: str) -> bytes:
        """Return the reply to a DNS message as a client at ``source`` gets it; empty if such a client gets none.

        Raises Unavailable if the process does not answer.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                with contextlib.closing(Channel(self._path)) as channel:
                    await channel.hello()
                    answer = await channel.ask(Ask(query=query, listener=listener, source=source))
        except _FAILURES as error:
            raise _unavailable(error) from error
        return answer.reply if isinstance(answer, Answer) else b""

    async def tell(
        self,
        scope: Scope,
        names: Mapping[str, NameRecord],
        *,
        changed: Collection[str] | None = None,
        complete: bool = True,
    ) -> None:
        """Make the process answer in ``scope`` from ``names`` (by endpoint); return when it does.

        ``changed`` are the endpoints that may differ from what was told before, None for any. Nothing else is left if
        ``complete``; else what an earlier agent told is kept. Raises Unavailable if there is no process and none can be
        started.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._tell(scope, names, changed, complete=complete)
        except _FAILURES as error:
            self.close()
            raise _unavailable(error) from error

    async def _tell(
        self, scope: Scope, names: Mapping[str, NameRecord], changed: Collection[str] | None, *, complete: bool
    ) -> None:
        if self._channel is None:
            await self._connect()
            changed = None
        reset = complete and not self._has_reset
        if reset:
            self._told, changed = {}, None
        candidates = names.keys() | self._told.keys() if changed is None else changed
        put = tuple(names[each] for each in candidates if each in names and self._told.get(each) != names[each])
        drop = tuple(each for each in candidates if each in self._told and each not in names)
        if reset or put or drop or scope != self._scope or self._unbound:
            failpoint.reach("dns.sync.before")
            done = await self._ask(
                Sync(networks=scope.networks, private=scope.private, own=scope.own, put=put, drop=drop, reset=reset)
            )
            failpoint.reach("dns.sync.after")
            self._scope, self._has_reset = scope, self._has_reset or reset
            self._told.update((record.id, record) for record in put)
            for identity in drop:
                del self._told[identity]
            await self._listen(done.missing)

    def close(self) -> None:
        """Let go of the process; it answers on."""
        if self._channel is not None:
            self._channel.close()
        self._channel, self._scope, self._has_reset = None, None, False
        self._told = {}
        self._lost.set()

    async def _connect(self) -> None:
        """Connect to the process, started if need be; one of another version is replaced."""
        hello = await self._reach()
        if (hello.protocol, hello.version) != (PROTOCOL, __version__):
            log.info("the DNS process is of version %s: it is replaced", hello.version)
            assert self._channel is not None
            with contextlib.suppress(OSError, EOFError):
                await self._channel.ask(Quit())
            await self._channel.ended()
            self.close()
            self._path.unlink(missing_ok=True)
            hello = await self._reach()
        self._path.with_suffix(".pid").write_text(f"{hello.pid}\n")
        self._lost.clear()

    async def _reach(self) -> Hello:
        try:
            self._channel = Channel(self._path)
        except (FileNotFoundError, ConnectionRefusedError):
            self._start()
            self._channel = Channel(self._path)
        return await self._channel.hello()

    def _start(self) -> None:
        self._path.unlink(missing_ok=True)
        if self._process is not None:
            self._process.poll()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            before = os.umask(0o177)
            try:
                control.bind(str(self._path))
            finally:
                os.umask(before)
            control.listen(8)
            descriptor = control.fileno()
            failpoint.reach("dns.start.before")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "netagent.dns", "--control-fd", str(descriptor)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                start_new_session=True,
            )
            failpoint.reach("dns.start.after")
        log.info("started the DNS process, pid %d", self._process.pid)

    async def _ask(self, request: Sync | Listen, sockets: Sequence[socket.socket] = ()) -> Done:
        assert self._channel is not None
        done = await self._channel.ask(request, sockets)
        if not isinstance(done, Done):
            raise ValueError("it does not answer what it was asked")
        self._channel.on_end(self.close)
        return done

    async def _listen(self, addresses: tuple[str, ...]) -> None:
        """Bind sockets for ``addresses`` and pass them; one that cannot be had is tried again with the next change."""
        failed: set[str] = set()
        for first in range(0, len(addresses), SOCKETS_AT_ONCE // 2):
            with contextlib.ExitStack() as opened:
                bound, sockets = [], []
                for address in addresses[first : first + SOCKETS_AT_ONCE // 2]:
                    try:
                        pair = [_bind(address, socket.SOCK_DGRAM), _bind(address, socket.SOCK_STREAM)]
                    except OSError as error:
                        failed.add(address)
                        if address not in self._unbound:
                            log.warning("no names are resolved on %s: %s", address, error)
                        continue
                    sockets += [opened.enter_context(each) for each in pair]
                    bound.append(address)
                if bound:
                    await self._ask(Listen(addresses=tuple(bound)), sockets)
        self._unbound = frozenset(failed)


def _bind(address: str, kind: socket.SocketKind) -> socket.socket:
    is_ipv6 = ":" in address
    opened = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, kind)
    try:
        if is_ipv6:
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            opened.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        if kind == socket.SOCK_DGRAM:
            with contextlib.suppress(OSError):
                opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE)
        if kind == socket.SOCK_STREAM:
            # Connections of an earlier process may linger in TIME_WAIT.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, _PORT))
        if kind == socket.SOCK_STREAM:
            opened.listen(_BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        f"the DNS process does not answer: {error or 'no reply in time'}",
        hint="the agent's log says why",
    )
