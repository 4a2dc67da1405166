"""What the agent tells the forwarder: datagrams of JSON on a pair of sockets, each answered by one empty object."""

import msgspec

SOCKETS_AT_ONCE = 32
"""Descriptors in one message; the kernel takes 253 (SCM_MAX_FD, include/net/scm.h)."""

MESSAGE_BYTES = 16384


class Way(msgspec.Struct, frozen=True):
    """One port of ::1 and the container's address and port that it leads to."""

    protocol: str
    port: int
    target: str
    target_port: int


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Ways to forward from now on, each with a socket that is passed along, and (protocol, port) to forward no more."""

    opened: tuple[Way, ...] = ()
    closed: tuple[tuple[str, int], ...] = ()
