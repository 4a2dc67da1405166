"""The Docker front door: a network and IPAM driver at ``/run/docker/plugins/netagent.sock``.

dockerd sets no time limit to a call and sends one again after a broken connection, so every call is bounded here and
may come twice. It looks for the socket by its path whenever it needs the driver: one that was removed is made anew.
"""

import asyncio
import logging
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from netagent.api.docker_http import HEAD_LIMIT, HttpError, encode_answer, read_request
from netagent.api.docker_verbs import DockerVerbs
from netagent.api.unix_socket import Connections, bound_socket
from netagent.errors import NetagentError

log = logging.getLogger("netagent.docker")

SOCKET_NAME = "netagent.sock"
CALL_S = 10.0
"""How long a call may take."""
RECEIVE_S = 10.0
"""How long a caller may take to hand in its request."""
LOOK_S = 1.0
"""How often the socket is looked for."""
BACKLOG = 1024


class DockerServer:
    """Serves dockerd in ``directory``."""

    def __init__(self, verbs: DockerVerbs, directory: Path) -> None:
        self._verbs = verbs
        self._path = directory / SOCKET_NAME
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._calls = Connections()

    async def start(self) -> None:
        """Listen. Conflict if another agent listens at the path."""
        listener = bound_socket(self._path)
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, backlog=BACKLOG, limit=HEAD_LIMIT)

    async def run(self) -> None:
        """Listen again whenever the socket is not at its path any more, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._is_in_place():
                continue
            log.warning("the socket %s was removed: making it again", self._path)
            if self._server is not None:
                self._server.close()
            try:
                await self.start()
            except (NetagentError, OSError) as error:
                log.error("dockerd cannot be served: %s", error)

    def _is_in_place(self) -> bool:
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    async def close(self) -> None:
        """Stop listening; let calls end that have begun."""
        if self._server is None:
            return
        self._server.close()
        if self._is_in_place():
            with suppress(FileNotFoundError):
                self._path.unlink()
        await self._calls.drain(CALL_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._calls.add_current()
        try:
            async with asyncio.timeout(RECEIVE_S + 2 * CALL_S):
                status, body = await self._converse(reader)
                writer.write(encode_answer(status, msgspec.json.encode(body)))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            log.debug("a call of Docker ended early: %s", error)
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader) -> tuple[HTTPStatus, dict[str, Any]]:
        try:
            async with asyncio.timeout(RECEIVE_S):
                request = await read_request(reader)
            if request.path not in self._verbs.table:
                raise HttpError(HTTPStatus.NOT_FOUND, f"no such method: {request.path[:64]}")
            if request.method != "POST":
                raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "methods are called by POST")
            return HTTPStatus.OK, await self._call(request.path, request.body)
        except HttpError as error:
            return error.status, _failure(str(error))

    async def _call(self, path: str, body: bytes) -> dict[str, Any]:
        kind, carry_out = self._verbs.table[path]
        try:
            request = None if kind is None else msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the body is not what {path} takes: {error}") from None
        try:
            async with asyncio.timeout(CALL_S):
                return await carry_out(request)
        except NetagentError as error:
            log.info("%s refused: %s", path, error)
            return _failure(str(error))
        except TimeoutError:
            log.warning("%s took more than %.0f s", path, CALL_S)
            return _failure(f"netagent did not finish within {CALL_S:.0f} s (try again)")
        except Exception:
            log.exception("%s failed", path)
            return _failure("internal error of the netagent agent (its log says more)")


def _failure(text: str) -> dict[str, Any]:
    # The network driver's calls read one of them, the IPAM driver's the other.
    return {"Err": text, "Error": text}
