"""One connection of the agent to the DNS process: frames out, frames in, sockets beside them."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from netagent.dns.control import Hello, Request, Response, decode_response, encode_frame, take_frames

_READ = 65536


class Channel:
    """A connection to the control socket at ``path``. FileNotFoundError or ConnectionRefusedError if nobody listens.

    Its coroutines raise OSError or EOFError if the process goes away, and ValueError or msgspec.MsgspecError if it
    says what cannot be understood.
    """

    def __init__(self, path: Path) -> None:
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """End the connection; the process answers on."""
        with contextlib.suppress(RuntimeError, ValueError):
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    async def hello(self) -> Hello:
        """Return the process's first words."""
        hello = await self._response()
        if not isinstance(hello, Hello):
            raise ValueError("it does not say who it is")
        return hello

    async def ask(self, request: Request, sockets: Sequence[socket.socket] = ()) -> Response:
        """Return the answer to ``request``; ``sockets`` go with it."""
        asyncio.get_running_loop().remove_reader(self._socket)
        frame = encode_frame(request)
        if sockets:
            # The descriptors go with the first bytes; a frame this short is sent as a whole.
            socket.send_fds(self._socket, [frame], [each.fileno() for each in sockets])
        else:
            await asyncio.get_running_loop().sock_sendall(self._socket, frame)
        return await self._response()

    async def ended(self) -> None:
        """Return when the process has closed the connection."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                await self._response()

    def on_end(self, act: Callable[[], None]) -> None:
        """Call ``act`` once the process goes away: it says nothing unasked, so whatever comes is the end."""
        asyncio.get_running_loop().add_reader(self._socket, act)

    async def _response(self) -> Response:
        while True:
            for body in take_frames(self._buffer):
                return decode_response(body)
            data = await asyncio.get_running_loop().sock_recv(self._socket, _READ)
            if not data:
                raise EOFError("it ended")
            self._buffer += data
