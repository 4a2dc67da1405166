"""Netlink: requests out in batches, refusals and dumps back. Knows nothing of links or routes.

The kernel handles every message of a send() before it returns, one after the other, and goes on after a refusal.
So only the last of a batch asks for an acknowledgement: refusals come unasked, and the acknowledgement ends the wait.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Container, Iterator, Sequence
from typing import NamedTuple

from netagent.errors import Unavailable
from netagent.kernel.uapi import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NETLINK_ROUTE,
    NLA_F_NESTED,
    NLA_TYPE_MASK,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSGERR_ATTR_MSG,
    SOL_NETLINK,
)

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_BATCH_MESSAGES = 128
_BATCH_BYTES = 1 << 15
_RECEIVE_BYTES = 1 << 16
_DUMP_ATTEMPTS = 10
_REPLY_TIMEOUT_S = 10


class Request(NamedTuple):
    """One message to the kernel: its type, its flags besides NLM_F_REQUEST, and what follows the header."""

    kind: int
    flags: int
    body: bytes


class Refusal(NamedTuple):
    """The kernel's no: the error number and its extended acknowledgement, or the C library's words for the number."""

    errno: int
    text: str


class Message(NamedTuple):
    """One message from the kernel. ``sender`` is the port of the socket whose request caused it, 0 for the kernel."""

    kind: int
    flags: int
    sequence: int
    sender: int
    body: memoryview


def encode_attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute, padded to four bytes (linux/netlink.h, struct nlattr)."""
    return _ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def encode_nested(kind: int, *attributes: bytes) -> bytes:
    """Return one attribute that holds others."""
    return encode_attribute(kind | NLA_F_NESTED, b"".join(attributes))


# The same walk three times: as a generator it takes each of them 1.4 to 2.4 times as long, thousands of times a pass.


def decode_attributes(body: memoryview) -> dict[int, memoryview]:
    """Return the attributes in ``body`` by type; a truncated one ends the list."""
    attributes: dict[int, memoryview] = {}
    offset, end = 0, len(body)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < 4:
            break
        attributes[kind & NLA_TYPE_MASK] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return attributes


def pick_attributes(body: memoryview, wanted: Container[int]) -> dict[int, memoryview]:
    """Return those attributes in ``body`` whose types are ``wanted``: a link has four times as many as are used."""
    attributes: dict[int, memoryview] = {}
    unpack = _ATTRIBUTE.unpack_from
    offset, last = 0, len(body) - _ATTRIBUTE.size
    while offset <= last:
        length, kind = unpack(body, offset)
        if length < _ATTRIBUTE.size:
            break
        kind &= NLA_TYPE_MASK
        if kind in wanted:
            attributes[kind] = body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return attributes


def find_attribute(body: memoryview, wanted: int) -> memoryview | None:
    """Return the first attribute of one type in ``body``, reading no further than to it."""
    unpack = _ATTRIBUTE.unpack_from
    offset, last = 0, len(body) - _ATTRIBUTE.size
    while offset <= last:
        length, kind = unpack(body, offset)
        if length < _ATTRIBUTE.size:
            return None
        if kind & NLA_TYPE_MASK == wanted:
            return body[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return None


def decode_messages(data: bytes) -> Iterator[Message]:
    """Yield the messages of one datagram."""
    view = memoryview(data)
    offset = 0
    while offset + _HEADER.size <= len(view):
        length, kind, flags, sequence, sender = _HEADER.unpack_from(view, offset)
        yield Message(kind, flags, sequence, sender, view[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


_SO_SNDBUFFORCE = 32
"""asm-generic/socket.h; Python has no names for these two."""
_SO_RCVBUFFORCE = 33
_NOTIFICATION_BYTES = 16 << 20


class NetlinkSocket:
    """A netlink socket of the network namespace that the calling thread is in. For one thread at a time."""

    def __init__(self, protocol: int = NETLINK_ROUTE, *, groups: Sequence[int] = (), send_bytes: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        # The kernel answers within send(); the limit only keeps a lost answer from hanging the worker for ever.
        limit = struct.pack("@ll", _REPLY_TIMEOUT_S, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        if send_bytes:
            # One datagram may be as large as the send buffer.
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, send_bytes)
        self._socket.bind((0, 0))
        if groups:
            # Notifications of a burst of attaches must fit until the event loop reads them: some 2 kB each.
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _NOTIFICATION_BYTES)
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        self._sequence = 0

    @property
    def port(self) -> int:
        """The socket's netlink port, by which notifications name whose request caused them."""
        return int(self._socket.getsockname()[0])

    def fileno(self) -> int:
        """Return the descriptor, for an event loop."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; closing twice is no error."""
        self._socket.close()

    def transact(self, requests: Sequence[Request]) -> list[Refusal | None]:
        """Send all ``requests`` in as few batches as will do; return for each None or the kernel's refusal."""
        outcome: list[Refusal | None] = [None] * len(requests)
        start = 0
        while start < len(requests):
            start = self._send_batch(requests, start, outcome)
        return outcome

    def transact_whole(self, begin: Request, requests: Sequence[Request], end: Request) -> list[Refusal | None]:
        """Send ``requests`` as one transaction of nfnetlink; return for each None or the kernel's refusal.

        If there is a refusal nothing was done. One of the transaction as a whole stands at its first request.
        """
        first = self._sequence + 1
        last = first + len(requests)
        self._sequence = last + 1
        parts = [_message(begin, NLM_F_REQUEST, first)]
        for sequence, request in enumerate(requests, first + 1):
            parts.append(_message(request, NLM_F_REQUEST | (NLM_F_ACK if sequence == last else 0), sequence))
        parts.append(_message(end, NLM_F_REQUEST, last + 1))
        self._socket.send(b"".join(parts))
        outcome: list[Refusal | None] = [None] * len(requests)
        # The kernel answers to the beginning if it could not commit, or ran out of memory.
        for sequence, refusal in self._refusals(first, last, ends=(first, last)):
            outcome[max(sequence - first - 1, 0)] = refusal
        return outcome

    def get(self, request: Request) -> memoryview:
        """Return the body of the one answer to ``request``; a refusal is raised as OSError."""
        self._sequence += 1
        self._socket.send(_message(request, NLM_F_REQUEST, self._sequence))
        while True:
            for message in decode_messages(self._socket.recv(_RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue
                if message.kind == NLMSG_ERROR:
                    refusal = _decode_refusal(message)
                    raise OSError(refusal.errno, refusal.text)
                return message.body

    def dump(self, request: Request) -> list[Message]:
        """Return every object that ``request`` asks for, as of one moment.

        A dump that the kernel marks as interrupted by a change is thrown away and begun anew; Unavailable if that
        happens ten times over.
        """
        for _ in range(_DUMP_ATTEMPTS):
            messages = self._dump_once(request)
            if messages is not None:
                return messages
        raise Unavailable(f"a kernel table (request {request.kind}) kept changing while it was read", hint="try again")

    def receive_notifications(self) -> list[Message]:
        """Return what one waiting datagram holds, none if there is no datagram; OSError ENOBUFS if some were lost."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        return list(decode_messages(data))

    def _send_batch(self, requests: Sequence[Request], start: int, outcome: list[Refusal | None]) -> int:
        first = self._sequence + 1
        stop, size = start, 0
        while stop < len(requests) and stop - start < _BATCH_MESSAGES:
            size += _HEADER.size + len(requests[stop].body)
            if size > _BATCH_BYTES and stop > start:
                break
            stop += 1
        parts = [
            _message(requests[i], NLM_F_REQUEST | (NLM_F_ACK if i == stop - 1 else 0), first + i - start)
            for i in range(start, stop)
        ]
        self._sequence = last = first + stop - start - 1
        self._socket.send(b"".join(parts))
        for sequence, refusal in self._refusals(first, last, ends=(last,)):
            outcome[start + sequence - first] = refusal
        return stop

    def _refusals(self, first: int, last: int, *, ends: Collection[int]) -> Iterator[tuple[int, Refusal]]:
        """Yield each refusal with its sequence number, of those from ``first`` to ``last``, until one of ``ends`` came.

        An end may be a refusal itself.
        """
        while True:
            for message in decode_messages(self._socket.recv(_RECEIVE_BYTES)):
                if message.kind != NLMSG_ERROR or not first <= message.sequence <= last:
                    continue
                refusal = _decode_refusal(message)
                if refusal.errno:
                    yield message.sequence, refusal
                if message.sequence in ends:
                    return

    def _dump_once(self, request: Request) -> list[Message] | None:
        self._sequence += 1
        self._socket.send(_message(request, NLM_F_REQUEST | NLM_F_DUMP, self._sequence))
        messages: list[Message] = []
        interrupted = False
        while True:
            for message in decode_messages(self._socket.recv(_RECEIVE_BYTES)):
                if message.sequence != self._sequence:
                    continue
                interrupted |= bool(message.flags & NLM_F_DUMP_INTR)
                if message.kind in (NLMSG_ERROR, NLMSG_DONE):
                    number = -_ERROR.unpack_from(message.body)[0] if len(message.body) >= _ERROR.size else 0
                    if number == errno.EINTR:
                        return None
                    if number:
                        raise OSError(number, os.strerror(number))
                    return None if interrupted else messages
                messages.append(message)


def _message(request: Request, flags: int, sequence: int) -> bytes:
    length = _HEADER.size + len(request.body)
    header = _HEADER.pack(length, request.kind, request.flags | flags, sequence, 0)
    return header + request.body + b"\0" * (-length % 4)


def _decode_refusal(message: Message) -> Refusal:
    number = -_ERROR.unpack_from(message.body)[0]
    text = os.strerror(number)
    if message.flags & NLM_F_ACK_TLVS:
        original = _HEADER.unpack_from(message.body, _ERROR.size)[0]
        kept = _HEADER.size if message.flags & NLM_F_CAPPED else (original + 3) & ~3
        said = decode_attributes(message.body[_ERROR.size + kept :]).get(NLMSGERR_ATTR_MSG)
        if said is not None:
            text = f"{text}: {bytes(said).rstrip(bytes(1)).decode(errors='replace')}"
    return Refusal(number, text)
