"""The CNI front door: a unix socket at which the plugin hands in one request a connection.

A runtime that gives up kills the plugin, and the connection ends. An ADD then runs to its end, and what it made is
taken down again, because nobody was told of it.
"""

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec

from netagent.api.cni_error import CniCode, CniError, error_object
from netagent.api.cni_queue import drain_queue, exclusive, place_link, queues_for
from netagent.api.cni_request import (
    LENGTH,
    REQUEST_LIMIT,
    Add,
    encode_answer,
    split_request,
    version_for_error,
)
from netagent.api.cni_verbs import CniVerbs
from netagent.api.unix_socket import Connections, bound_socket, peer_process
from netagent.services.all import Services

log = logging.getLogger("netagent.cni")

BACKLOG = 1024
"""Connections that may wait: a runtime that starts all its containers calls hundreds of plugins at once."""

RECEIVE_S = 10.0
"""How long a plugin may take to hand in its request: it has read all of it before it connects."""

DRAIN_S = 10.0
"""How long requests may go on when the agent stops."""


class CniServer:
    """Serves the plugin at ``socket_path``, after what it left in ``queue_dir`` has been carried out."""

    def __init__(self, services: Services, socket_path: Path, queue_dir: Path) -> None:
        self._verbs = CniVerbs(services)
        self._socket_path = socket_path
        self._queue_dir = queue_dir
        self._server: asyncio.Server | None = None
        self._connections = Connections()

    async def start(self) -> None:
        """Carry out the queue, then listen. Conflict if another agent listens at the path."""
        async with AsyncExitStack() as locks:
            for queue in queues_for(self._socket_path, self._queue_dir):
                await locks.enter_async_context(exclusive(queue))
                done = await drain_queue(queue, self._verbs.perform_queued)
                if done:
                    log.info("%d deletions that waited for the agent are carried out", done)
            place_link(self._socket_path, self._queue_dir)
            self._server = await asyncio.start_unix_server(
                self._serve, sock=bound_socket(self._socket_path, 0o600), backlog=BACKLOG
            )

    async def close(self) -> None:
        """Stop listening; let requests end that have begun."""
        if self._server is None:
            return
        self._server.close()
        with suppress(FileNotFoundError):
            self._socket_path.unlink()
        await self._connections.drain(DRAIN_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add_current()
        try:
            await self._converse(reader, writer)
        except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            log.debug("a CNI request ended early: %s", error)
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(RECEIVE_S):
            (size,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            if size > REQUEST_LIMIT:
                too_large = CniError(CniCode.DECODE_FAILURE, f"the request is larger than {REQUEST_LIMIT >> 20} MiB")
                writer.write(_encode_error(too_large, b""))
                return
            request = await reader.readexactly(size)
        made: list[Add] = []
        async with asyncio.TaskGroup() as group:
            gone = group.create_task(_end_of(reader))
            answer = await self._answer(request, made, peer_process(writer.get_extra_info("socket")))
            has_reader = not gone.done()
            gone.cancel()
        try:
            if not has_reader:
                raise ConnectionResetError("the plugin was ended before its answer")
            writer.write(answer)
            writer.close()
            await writer.wait_closed()
        except OSError:
            for add in made:
                await self._verbs.take_back(add)
            raise

    async def _answer(self, request: bytes, made: list[Add], caller: int) -> bytes:
        """Return the answer to a request; an ADD that succeeded is put into ``made``."""
        complaints: list[bytes] = []
        try:
            output = await self._verbs.perform(request, made, complaints, caller)
        except CniError as error:
            log.info("CNI request refused: %s", error)
            return _encode_error(error, request, b"".join(complaints))
        except Exception:
            log.exception("CNI request failed")
            bug = CniError(CniCode.INTERNAL, "internal error of the netagent agent", "its log says more")
            return _encode_error(bug, request)
        return encode_answer(0, output, b"".join(complaints))


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Return when the other side has closed the connection."""
    with suppress(OSError):
        while await reader.read(1024):
            pass


def _encode_error(error: CniError, request: bytes, complaint: bytes = b"") -> bytes:
    try:
        _, text = split_request(request)
    except CniError:
        text = b""
    return encode_answer(1, msgspec.json.encode(error_object(error, version_for_error(text))), complaint)
