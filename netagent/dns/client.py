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
from collections.abc import Mapping
from pathlib import Path

import msgspec

from netagent import __version__, failpoint
from netagent.dns.control import (
    PROTOCOL,
    SOCKETS_AT_ONCE,
    Done,
    Hello,
    Listen,
    NameRecord,
    NetworkRecord,
    Quit,
    Request,
    Response,
    Sync,
    decode_response,
    encode_frame,
    take_frames,
)
from netagent.errors import Unavailable

log = logging.getLogger("netagent.dns")

ANSWER_WITHIN_S = 5.0
_PORT = 53
_BACKLOG = 128
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
"""include/uapi/linux/in.h and in6.h; Python has no names for them."""


class NameServer:
    """One per agent. ``path`` is the control socket; beside it lies ``dns.pid``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None
        self._buffer = bytearray()
        self._told: dict[str, NameRecord] = {}
        self._networks: tuple[NetworkRecord, ...] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._unbound: frozenset[str] = frozenset()
        self._has_reset = False
        self._lost = asyncio.Event()

    async def lost(self) -> None:
        """Wait until the process that was told last is gone."""
        await self._lost.wait()

    async def tell(
        self, networks: tuple[NetworkRecord, ...], names: Mapping[str, NameRecord], *, complete: bool = True
    ) -> None:
        """Make the process answer from ``networks`` and ``names`` (by endpoint), and nothing else if ``complete``.

        Returns when it does. Raises Unavailable if there is none and none can be started. What an earlier agent told is
        kept until the first time that all is known.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._tell(networks, names, complete=complete)
        except (OSError, EOFError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            self.close()
            raise Unavailable(f"the DNS process does not answer: {error or 'no reply in time'}") from error

    async def _tell(
        self, networks: tuple[NetworkRecord, ...], names: Mapping[str, NameRecord], *, complete: bool
    ) -> None:
        if self._connection is None:
            await self._connect()
        reset = complete and not self._has_reset
        known: Mapping[str, NameRecord] = {} if reset else self._told
        put = tuple(r for identity, r in names.items() if (old := known.get(identity)) is not r and old != r)
        drop = tuple(identity for identity in known if identity not in names)
        if reset or put or drop or networks != self._networks or self._unbound:
            failpoint.reach("dns.sync.before")
            done = await self._ask(Sync(networks=networks, put=put, drop=drop, reset=reset))
            failpoint.reach("dns.sync.after")
            self._networks, self._told, self._has_reset = networks, dict(names), self._has_reset or reset
            await self._listen(done.missing)

    def close(self) -> None:
        """Let go of the process; it answers on."""
        if self._connection is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._connection)
            self._connection.close()
        self._connection, self._networks, self._has_reset = None, None, False
        self._told.clear()
        self._buffer.clear()
        self._lost.set()

    async def _connect(self) -> None:
        """Connect to the process, started if need be; one of another version is replaced."""
        hello = await self._reach()
        if (hello.protocol, hello.version) != (PROTOCOL, __version__):
            log.info("the DNS process is of version %s: it is replaced", hello.version)
            with contextlib.suppress(OSError, EOFError):
                await self._ask(Quit())
            self.close()
            self._path.unlink(missing_ok=True)
            hello = await self._reach()
        self._path.with_suffix(".pid").write_text(f"{hello.pid}\n")
        self._lost.clear()

    async def _reach(self) -> Hello:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        self._connection = connection
        try:
            connection.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            self._start()
            connection.connect(str(self._path))
        hello = await self._response()
        if not isinstance(hello, Hello):
            raise ValueError("it does not say who it is")
        return hello

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

    async def _ask(self, request: Request, sockets: list[socket.socket] | None = None) -> Done:
        loop, connection = asyncio.get_running_loop(), self._connection
        assert connection is not None
        loop.remove_reader(connection)
        frame = encode_frame(request)
        if sockets:
            # The descriptors go with the first bytes; a frame this short is sent as a whole.
            socket.send_fds(connection, [frame], [each.fileno() for each in sockets])
        else:
            await loop.sock_sendall(connection, frame)
        done = await self._response()
        if not isinstance(done, Done):
            raise ValueError("it does not answer what it was asked")
        # It says nothing unasked: what is readable now is the end of the connection.
        loop.add_reader(connection, self.close)
        return done

    async def _response(self) -> Response:
        loop, connection = asyncio.get_running_loop(), self._connection
        assert connection is not None
        while True:
            for body in take_frames(self._buffer):
                return decode_response(body)
            data = await loop.sock_recv(connection, 65536)
            if not data:
                raise EOFError("it ended")
            self._buffer += data

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
