"""What the agent and the DNS process tell each other on ``<run-dir>/dns.sock``: frames of a u32 length and JSON.

The agent asks, the process answers; a connection begins with the process's Hello. ``Listen`` carries bound sockets
beside its bytes (SCM_RIGHTS, unix(7)), in the order of ``addresses``: UDP, then TCP for each.
"""

from collections.abc import Iterator
from typing import TypeAlias

import msgspec

PROTOCOL = 2
"""Raised by every change of the messages: an agent ends a process that speaks another one, and starts its own."""
FRAME_LIMIT = 256 * 1024 * 1024
SOCKETS_AT_ONCE = 100
"""The kernel passes at most 253 descriptors in one message (SCM_MAX_FD, include/net/scm.h)."""


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A network of this host. An ``internal`` one forwards nothing."""

    id: str
    name: str
    prefixes: tuple[str, ...]
    gateways: tuple[str, ...]
    internal: bool


class NameRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint. The first of ``names`` is the one that PTR tells; ``here`` if it is on this host.

    ``title`` is the container's name, which links lead to, also where nothing has a name. ``ports`` are the published
    ones: (container port, protocol). For its own container alone: ``links`` are (alias, title of another container),
    and ``servers`` are asked instead of the host's.
    """

    id: str
    network: str
    container: str
    title: str = ""
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    ports: tuple[tuple[int, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    servers: tuple[str, ...] = ()
    here: bool = True


class Sync(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All networks, and what is new, changed and gone among the endpoints; with ``reset`` nothing else is left.

    ``private`` are the subnets of all networks, also those that are not on this host. At the addresses ``own`` the host
    itself asks, for names of all networks here.
    """

    networks: tuple[NetworkRecord, ...]
    private: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    put: tuple[NameRecord, ...]
    drop: tuple[str, ...] = ()
    reset: bool = False


class Listen(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answer on these gateway addresses too; their sockets come with the message."""

    addresses: tuple[str, ...]


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Answer ``query``, a DNS message, as if it came over TCP from ``source`` to ``listener``."""

    query: bytes
    listener: str
    source: str


class Quit(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End the process."""


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Who answers here."""

    protocol: int
    version: str
    pid: int


class Done(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to Sync, Listen and Quit: it holds from now on. ``missing`` are gateway addresses without sockets."""

    missing: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to Ask: a DNS message, empty if there is no reply to such a source."""

    reply: bytes


Request: TypeAlias = Sync | Listen | Ask | Quit
Response: TypeAlias = Hello | Done | Answer

_request: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_response: msgspec.json.Decoder[Response] = msgspec.json.Decoder(Response)


def encode_frame(message: Request | Response) -> bytes:
    """Return ``message`` as it goes onto the socket."""
    body = msgspec.json.encode(message)
    return len(body).to_bytes(4, "big") + body


def decode_request(body: bytes) -> Request:
    """Return the agent's message; msgspec.MsgspecError if it is none."""
    return _request.decode(body)


def decode_response(body: bytes) -> Response:
    """Return the process's message; msgspec.MsgspecError if it is none."""
    return _response.decode(body)


def take_frames(buffer: bytearray) -> Iterator[bytes]:
    """Yield the complete frames at the beginning of ``buffer``, and remove them; ValueError for one beyond measure."""
    while len(buffer) >= 4:
        length = int.from_bytes(buffer[:4], "big")
        if length > FRAME_LIMIT:
            raise ValueError(f"a frame of {length} bytes")
        if len(buffer) < 4 + length:
            return
        body = bytes(buffer[4 : 4 + length])
        del buffer[: 4 + length]
        yield body
