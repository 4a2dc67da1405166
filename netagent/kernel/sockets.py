"""Which sockets of this host have which ports, asked of the kernel's socket monitor (sock_diag(7)).

One look costs the same for a thousand ports as for one: the kernel is given the range and answers with who is in it.
"""

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from netagent.kernel.netlink import Message, NetlinkSocket, Request, decode_attributes, encode_attribute
from netagent.model.address import Address

NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_INET_DIAG_REQ_BYTECODE: Final = 1
_INET_DIAG_SKV6ONLY: Final = 11
_BC_S_GE, _BC_S_LE = 2, 3
"""linux/inet_diag.h: the source port is at least, at most."""

_REQUEST = struct.Struct("=BBBxI")
_ID = struct.Struct("!HH16s16s4s8s")
_ANSWER = struct.Struct("=BBBB")
_OPERATION = struct.Struct("=BBH")

_TCP_CLOSE, _TCP_ESTABLISHED, _TCP_LISTEN, _TCP_BOUND_INACTIVE = 7, 1, 10, 13
"""net/tcp_states.h. The last is for sockets that are bound only (Linux 6.8); older kernels pass over it."""
_STATES = {
    socket.IPPROTO_TCP: 1 << _TCP_LISTEN | 1 << _TCP_BOUND_INACTIVE,
    socket.IPPROTO_UDP: 1 << _TCP_CLOSE | 1 << _TCP_ESTABLISHED,
}
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


class BoundSocket(NamedTuple):
    """A socket with a local port. ``is_dual`` if it is one of IPv6 that takes IPv4 too."""

    address: Address
    port: int
    is_dual: bool


def bound_sockets(protocol: str, first: int, last: int) -> Iterator[BoundSocket]:
    """Yield the sockets of ``protocol`` (tcp or udp) that have a port from ``first`` to ``last``.

    TCP connections do not count: they hold a port only against those who do not ask for reuse. Of the namespace that
    the calling thread is in.
    """
    number = PROTOCOLS[protocol]
    wanted = encode_attribute(_INET_DIAG_REQ_BYTECODE, _port_filter(first, last))
    monitor = NetlinkSocket(NETLINK_SOCK_DIAG)
    try:
        for family in (socket.AF_INET, socket.AF_INET6):
            body = _REQUEST.pack(family, number, 0, _STATES[number]) + bytes(_ID.size)
            request = Request(_SOCK_DIAG_BY_FAMILY, 0, body + wanted)
            yield from map(_decode, monitor.dump(request))
    finally:
        monitor.close()


def _port_filter(first: int, last: int) -> bytes:
    """Return the program that lets a range of source ports through: two comparisons, each 8 bytes with its operand.

    A comparison that fails jumps 4 bytes beyond the end, which is how such a program says no (inet_diag_bc_run).
    """
    return b"".join(
        (
            _OPERATION.pack(_BC_S_GE, 8, 20),
            _OPERATION.pack(0, 0, first),
            _OPERATION.pack(_BC_S_LE, 8, 12),
            _OPERATION.pack(0, 0, last),
        )
    )


def _decode(message: Message) -> BoundSocket:
    family = _ANSWER.unpack_from(message.body)[0]
    port, _, source, *_ = _ID.unpack_from(message.body, _ANSWER.size)
    # struct inet_diag_msg: after the id come five numbers of four bytes.
    attributes = decode_attributes(message.body[_ANSWER.size + _ID.size + 20 :])
    if family == socket.AF_INET:
        return BoundSocket(ip_address(source[:4]), port, is_dual=False)
    only = attributes.get(_INET_DIAG_SKV6ONLY)
    return BoundSocket(ip_address(source), port, is_dual=only is None or not only[0])
