"""As much of HTTP/1.1 (RFC 9112) as dockerd speaks to a plugin: one POST with a sized body, one answer."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus

HEAD_LIMIT = 16 * 1024
BODY_LIMIT = 1024 * 1024
CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"


class HttpError(Exception):
    """A request that gets a status instead of an answer."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request."""

    method: str
    path: str
    body: bytes


async def read_request(reader: asyncio.StreamReader) -> HttpRequest:
    """Return the request that comes; HttpError if it is none, IncompleteReadError if it ends early.

    The reader's limit must be HEAD_LIMIT.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too long") from None
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise HttpError(HTTPStatus.BAD_REQUEST, "this is not HTTP/1")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if "transfer-encoding" in headers:
        raise HttpError(HTTPStatus.LENGTH_REQUIRED, "the body needs a Content-Length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise HttpError(HTTPStatus.BAD_REQUEST, "invalid Content-Length")
    if len(length) > 9 or int(length) > BODY_LIMIT:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {BODY_LIMIT} bytes")
    return HttpRequest(method=words[0], path=words[1].partition("?")[0], body=await reader.readexactly(int(length)))


def encode_answer(status: HTTPStatus, body: bytes) -> bytes:
    """Return an answer. It ends the connection: dockerd takes one that was closed while idle for a dead plugin."""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
