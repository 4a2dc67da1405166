"""What dockerd says at its API's socket: names that it does not tell a driver, and what it still has.

HTTP/1.0, so that an answer, also the endless one of ``/events``, is what comes until the connection ends.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_interface
from typing import Annotated, Any

import msgspec

from netagent.errors import NotFound, Unavailable
from netagent.model.address import Address
from netagent.model.docker import DockerNetwork

CALL_S = 30.0
"""How long an answer may take: dockerd holds a container's lock while it starts or stops it."""
LINE_LIMIT = 4 * 1024 * 1024
_EVENTS = '/events?filters={"type":["network","container"],"event":["connect","start","rename"]}'
_LIVING = '/containers/json?all=1&filters={"status":["created","restarting","running","paused"]}'
_ESCAPES = str.maketrans({"{": "%7B", "}": "%7D", '"': "%22", "[": "%5B", "]": "%5D"})


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    hostname: str = ""


class _HostConfig(msgspec.Struct, frozen=True, rename="pascal"):
    dns: list[str] | None = None


class _Endpoint(msgspec.Struct, frozen=True, rename="pascal"):
    endpoint: str = msgspec.field(name="EndpointID", default="")
    aliases: list[str] | None = None


class _Networks(msgspec.Struct, frozen=True, rename="pascal"):
    networks: dict[str, _Endpoint] | None = None


class _Container(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    name: str
    config: _Config = _Config()
    host_config: _HostConfig = _HostConfig()
    network_settings: _Networks = _Networks()


class DockerContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container as dockerd has it; ``endpoints`` are endpoint ids with the aliases that it has there."""

    id: str
    name: str
    hostname: str
    nameservers: tuple[str, ...]
    endpoints: dict[str, tuple[str, ...]]


class DockerContent(msgspec.Struct, frozen=True, kw_only=True):
    """What dockerd has in a network: the ids of endpoints, joined to a container or not, and their addresses."""

    endpoints: frozenset[str] = frozenset()
    addresses: frozenset[Address] = frozenset()


class _Attached(msgspec.Struct, frozen=True):
    endpoint: str = msgspec.field(name="EndpointID", default="")
    address: str = msgspec.field(name="IPv4Address", default="")
    address6: str = msgspec.field(name="IPv6Address", default="")


class _Network(msgspec.Struct, frozen=True):
    attached: dict[str, _Attached] | None = msgspec.field(name="Containers", default=None)


class _Engine(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID", default="")
    root: str = msgspec.field(name="DockerRootDir", default="")


class _Listed(msgspec.Struct, frozen=True, rename="pascal"):
    id: str


class _Actor(msgspec.Struct, frozen=True, rename="pascal"):
    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] = {}


class _Event(msgspec.Struct, frozen=True, rename="pascal"):
    type: Annotated[str, msgspec.Meta(max_length=64)] = ""
    actor: _Actor = _Actor()


class Dockerd:
    """The daemon at one socket. Every call raises Unavailable while it is away, or if it says what cannot be read.

    NotFound for what it does not have.
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path

    async def living(self) -> list[str]:
        """Return the ids of the containers that run, or are about to."""
        return [c.id for c in _decode(await self._get(_LIVING), list[_Listed])]

    async def container(self, identity: str) -> DockerContainer:
        """Return one container."""
        found = _decode(await self._get(f"/containers/{identity}/json"), _Container)
        networks = found.network_settings.networks or {}
        return DockerContainer(
            id=found.id,
            name=found.name.removeprefix("/"),
            hostname=found.config.hostname,
            nameservers=tuple(found.host_config.dns or ()),
            endpoints={e.endpoint: tuple(e.aliases or ()) for e in networks.values() if e.endpoint},
        )

    async def engine(self) -> str:
        """Return what tells this dockerd from another one: its id and where it keeps its state; empty if it has none.

        Up to Docker 23 the id outlives the state.
        """
        found = _decode(await self._get("/info"), _Engine)
        return f"{found.id} {found.root}" if found.id else ""

    async def content(self, network: str) -> DockerContent | None:
        """Return what dockerd has in one of its networks, None if it has no such network."""
        try:
            found = _decode(await self._get(f"/networks/{network}"), _Network)
        except NotFound:
            return None
        attached = (found.attached or {}).values()
        try:
            addresses = frozenset(ip_interface(text).ip for a in attached for text in (a.address, a.address6) if text)
        except ValueError as error:
            raise Unavailable(f"dockerd says what cannot be read: {error}") from error
        return DockerContent(endpoints=frozenset(a.endpoint for a in attached), addresses=addresses)

    async def has_lost(self, network: DockerNetwork) -> bool:
        """Tell whether the very dockerd that was seen to have a network does not have it any more."""
        if not network.engine or await self.content(network.id) is not None:
            return False
        return await self.engine() == network.engine

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[str]]:
        """Give the ids of containers that were connected or renamed from now on, for as long as dockerd is there."""
        async with self._asked(_EVENTS) as reader:
            yield self._changed(reader)

    async def _changed(self, reader: asyncio.StreamReader) -> AsyncIterator[str]:
        try:
            while line := await reader.readline():
                event = _decode(line, _Event)
                identity = event.actor.id if event.type == "container" else event.actor.attributes.get("container", "")
                if identity:
                    yield identity
        except (OSError, ValueError) as error:
            raise Unavailable(f"dockerd at {self._socket_path} does not answer: {error}") from error

    async def _get(self, path: str) -> bytes:
        try:
            async with asyncio.timeout(CALL_S), self._asked(path) as reader:
                return await reader.read(-1)
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"dockerd at {self._socket_path} does not answer: {error}") from error

    @asynccontextmanager
    async def _asked(self, path: str) -> AsyncIterator[asyncio.StreamReader]:
        """Ask, and give the reader at the beginning of the body."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket_path, limit=LINE_LIMIT)
        except OSError as error:
            raise Unavailable(f"dockerd is not at {self._socket_path}: {error.strerror}") from error
        try:
            try:
                writer.write(f"GET {path.translate(_ESCAPES)} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                raise Unavailable(f"dockerd at {self._socket_path} does not answer: {error}") from error
            status = head.partition(b"\r\n")[0].decode("latin-1")
            if status.split(" ")[1:2] == ["404"]:
                raise NotFound(f"dockerd does not have {path.partition('?')[0]}")
            if status.split(" ")[1:2] != ["200"]:
                raise Unavailable(f"dockerd refuses {path.partition('?')[0]}: {status}")
            yield reader
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _decode(text: bytes, kind: type) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unavailable(f"dockerd says what cannot be read: {error}") from error
