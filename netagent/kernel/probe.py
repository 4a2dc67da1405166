"""Asks other hosts for an echo (ICMP, RFC 792; ICMPv6, RFC 4443), from an address of this host's own choice."""

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from netagent.model.address import Address

WITHIN_S = 1.0
LATE_READS = 100
"""How often it is read after that: a sender that never ends must not keep us."""
_ECHO = struct.Struct("!BBHHH")
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
"""include/uapi/linux/in.h and in6.h: DF, and no attention to path MTUs that were learnt."""
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}


def answering(pairs: Iterable[tuple[Address, Address]], sizes: Mapping[Address, int]) -> frozenset[Address]:
    """Return the targets among ``pairs`` of source and target that answer within a second. It blocks as long.

    ``sizes`` are octets of payload in the echo to a target; it is sent with DF, whatever path MTU the kernel knows.
    """
    identifier = int.from_bytes(os.urandom(2))
    waiting: dict[socket.socket, Address] = {}
    try:
        for source, target in pairs:
            sock = _open(source, target)
            if sock is not None:
                waiting[sock] = target
                _ask(sock, target, identifier, bytes(sizes.get(target, 0)))
        return _collect(waiting, identifier)
    finally:
        for sock in waiting:
            sock.close()


def largest(asked: Iterable[tuple[Address, Address, Sequence[int]]]) -> dict[Address, int]:
    """Return for each target the most octets of payload, of those given with source and target, that it answers.

    Targets that answer none are left out. Each size is asked once, all of them within the same second.
    """
    identifier = int.from_bytes(os.urandom(2))
    waiting: dict[socket.socket, Address] = {}
    sizes: dict[Address, Sequence[int]] = {}
    found: dict[Address, int] = {}
    try:
        for source, target, wanted in asked:
            sock = _open(source, target)
            if sock is not None:
                waiting[sock], sizes[target] = target, wanted
                for number, size in enumerate(wanted):
                    _ask(sock, target, identifier, bytes(size), number)
        for ready in readable(lambda: list(waiting)):
            for sock in ready:
                target = waiting[sock]
                answered = _reply(sock, target, identifier)
                if answered is not None and answered < len(sizes[target]):
                    found[target] = max(found.get(target, 0), sizes[target][answered])
        return found
    finally:
        for sock in waiting:
            sock.close()


def _open(source: Address, target: Address) -> socket.socket | None:
    is_v4 = target.version == 4
    family = socket.AF_INET if is_v4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP if is_v4 else socket.IPPROTO_ICMPV6)
    try:
        level, option = (socket.IPPROTO_IP, _IP_MTU_DISCOVER) if is_v4 else (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER)
        sock.setsockopt(level, option, _PMTUDISC_PROBE)
        sock.bind((str(source), 0))
        sock.connect((str(target), 0))
    except OSError:
        sock.close()
        return None
    return sock


def _ask(sock: socket.socket, target: Address, identifier: int, payload: bytes, number: int = 1) -> None:
    head = _ECHO.pack(_REQUEST[target.version], 0, 0, identifier, number)
    if target.version == 4:
        head = _ECHO.pack(_REQUEST[4], 0, internet_checksum(head), identifier, number)
    try:
        # Zeros add nothing to the checksum.
        sock.send(head + payload)
    except OSError:
        return


def internet_checksum(data: bytes) -> int:
    """Return the checksum of an even number of octets (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _collect(waiting: dict[socket.socket, Address], identifier: int) -> frozenset[Address]:
    answered: set[Address] = set()
    for ready in readable(lambda: [sock for sock, target in waiting.items() if target not in answered]):
        for sock in ready:
            if _reply(sock, waiting[sock], identifier) is not None:
                answered.add(waiting[sock])
    return frozenset(answered)


def readable(pending: Callable[[], list[socket.socket]]) -> Iterator[list[socket.socket]]:
    """Yield those of ``pending()`` that something can be read from, for a second or until there are none left.

    What has come by then is read also where this process stood still meanwhile: that it was late is not their fault.
    """
    begun = time.monotonic()
    reads = 0
    while sockets := pending():
        left = begun + WITHIN_S - time.monotonic()
        ready = select.select(sockets, [], [], max(left, 0.0))[0]
        reads += left <= 0
        if not ready or reads > LATE_READS:
            return
        yield ready


def _reply(sock: socket.socket, target: Address, identifier: int) -> int | None:
    """Return the number of the echo that the next packet answers, None if it answers none."""
    try:
        data = sock.recv(256)
    except OSError:
        return None
    if target.version == 4:
        data = data[(data[0] & 0x0F) * 4 :]
    if len(data) < _ECHO.size:
        return None
    kind, _, _, found, number = _ECHO.unpack_from(data)
    return int(number) if kind == _REPLY[target.version] and found == identifier else None
