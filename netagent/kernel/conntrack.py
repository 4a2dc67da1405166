"""Forgets tracked connections: those to a host port that now leads elsewhere, those that a former address answered.

A dump is filtered in the kernel (CTA_FILTER, Linux 5.8, net/netfilter/nf_conntrack_netlink.c), but it walks every
bucket of the machine's table: 9 ms with the usual 262,144, however few connections there are. So this is done by a
thread of its own while an attach answers, and not at all where nothing is tracked. A deletion that is filtered in the
kernel (CTA_FILTER there too, where the kernel has that) costs a fiftieth, but cannot spare what is right already: what
goes with a port or an address is forgotten by it, before the answer.
"""

import errno
import logging
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address

from netagent import failpoint
from netagent.errors import NetagentError
from netagent.kernel.netlink import Message, NetlinkSocket, Request, decode_attributes, encode_attribute, encode_nested
from netagent.kernel.rtnl import Rtnl, raise_first
from netagent.kernel.sysctl import read_sysctl
from netagent.kernel.uapi import (
    CTA_FILTER,
    CTA_FILTER_ORIG_FLAGS,
    CTA_FILTER_REPLY_FLAGS,
    CTA_ID,
    CTA_IP_V4_DST,
    CTA_IP_V4_SRC,
    CTA_IP_V6_DST,
    CTA_IP_V6_SRC,
    CTA_PROTO_DST_PORT,
    CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT,
    CTA_STATS_GLOBAL_ENTRIES,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY,
    CTA_ZONE,
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET,
    IPCTNL_MSG_CT_GET_STATS,
    NETLINK_NETFILTER,
    NFNL_SUBSYS_CTNETLINK,
)
from netagent.model.address import Address
from netagent.model.counters import TrackedConnections
from netagent.plan.desired import HostPort
from netagent.plan.operation import FlushAddress, FlushPort, Operation

_log = logging.getLogger("netagent.kernel")

SETTLE_S = 0.02
"""How long it waits for more, and for the answer to be out: the walk through the table delayed it by 9 ms."""

FAILPOINTS = ("kernel.flush.before", "kernel.flush.after")

_NFGENMSG = struct.Struct("=BBH")
_PORT = struct.Struct("!H")
_FAMILY = {4: 2, 6: 10}
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
# net/netfilter/nf_internals.h: which parts of a tuple a filter compares.
_FILTER_IP_SRC, _FILTER_IP_DST, _FILTER_PROTO_NUM, _FILTER_PROTO_DST_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 5
_MOST_AT_ONCE = 20_000
_DROPS_AT_ONCE = 16
"""Connections that a walk in the kernel may have to look at, and walks, before an answer."""
_FILTERED_DUMPS = 4
"""Of more ports than these the whole of a protocol is read once: every dump walks the table anew."""


def tracked_connections() -> TrackedConnections | None:
    """Return how full the table of the calling thread's namespace is, None where the kernel tracks nothing.

    Each namespace counts its own; the limit is one number for the machine, which each is held to by itself.
    """
    count, limit = (read_sysctl(("net", "netfilter", f"nf_conntrack_{which}")) for which in ("count", "max"))
    return None if count is None or limit is None else TrackedConnections(count=int(count), limit=int(limit))


@dataclass(frozen=True, slots=True)
class Flow:
    """One tracked connection: its original destination, who answers it, and what a deletion names it by."""

    destination: Address
    port: int
    answerer: Address
    answering_port: int
    family: int
    identity: bytes


class Conntrack:
    """The table of tracked connections of the namespace of the thread that made this."""

    def __init__(self) -> None:
        # Kept open: closing a netfilter socket may wait for RCU.
        self._netlink = NetlinkSocket(NETLINK_NETFILTER)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def count(self) -> int:
        """Return how many connections are tracked."""
        request = Request(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS, 0, _NFGENMSG.pack(0, 0, 0))
        attributes = decode_attributes(self._netlink.get(request)[_NFGENMSG.size :])
        return int.from_bytes(attributes.get(CTA_STATS_GLOBAL_ENTRIES, b""))

    def to_port(self, version: int, protocol: int, *, port: int = 0, address: Address | None = None) -> Iterator[Flow]:
        """Yield the connections of a protocol whose original destination is ``port`` and ``address``, if given."""
        pattern, flags = _to_port(version, protocol, port, address)
        return self._dump(version, CTA_TUPLE_ORIG, pattern, CTA_FILTER_ORIG_FLAGS, flags)

    def answered_by(self, address: Address) -> Iterator[Flow]:
        """Yield the connections whose answers come from ``address``."""
        return self._dump(address.version, CTA_TUPLE_REPLY, _from(address), CTA_FILTER_REPLY_FLAGS, _FILTER_IP_SRC)

    def forget(self, operation: Operation, flows: Iterable[Flow]) -> None:
        """Delete ``flows``; those that ended meanwhile are no error."""
        requests = [
            Request(
                NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, 0, _NFGENMSG.pack(flow.family, 0, 0) + flow.identity
            )
            for flow in flows
        ]
        outcome = self._netlink.transact(requests)
        raise_first([operation] * len(requests), outcome, allowed=(errno.ENOENT,))

    def drop(self, version: int, tuple_kind: int, pattern: bytes, flags: int) -> bool:
        """Forget all connections one of whose tuples is like ``pattern``; False if this kernel cannot.

        One walk in the kernel, past empty buckets (nf_ct_iterate_cleanup): 0.2 ms where a dump takes 9 or more.
        """
        chosen = CTA_FILTER_ORIG_FLAGS if tuple_kind == CTA_TUPLE_ORIG else CTA_FILTER_REPLY_FLAGS
        compared = (
            encode_attribute(kind, struct.pack("=I", flags if kind == chosen else 0))
            for kind in (CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS)
        )
        body = _NFGENMSG.pack(_FAMILY[version], 0, 0) + encode_nested(tuple_kind, pattern)
        request = Request(
            NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, 0, body + encode_nested(CTA_FILTER, *compared)
        )
        # Older kernels take the pattern for a whole tuple, and miss parts of it: EINVAL.
        return self._netlink.transact([request]) == [None]

    def _dump(self, version: int, tuple_kind: int, pattern: bytes, flags_kind: int, flags: int) -> Iterator[Flow]:
        wanted = encode_nested(CTA_FILTER, encode_attribute(flags_kind, struct.pack("=I", flags)))
        body = _NFGENMSG.pack(_FAMILY[version], 0, 0) + encode_nested(tuple_kind, pattern) + wanted
        return map(_decode, self._netlink.dump(Request(NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, 0, body)))


def _to_port(version: int, protocol: int, port: int, address: Address | None) -> tuple[bytes, int]:
    """Return a tuple with this destination, and which parts of it count."""
    parts, flags = encode_attribute(CTA_PROTO_NUM, bytes([protocol])), _FILTER_PROTO_NUM
    if port:
        parts += encode_attribute(CTA_PROTO_DST_PORT, _PORT.pack(port))
        flags |= _FILTER_PROTO_DST_PORT
    pattern = encode_nested(CTA_TUPLE_PROTO, parts)
    if address is not None:
        kind = CTA_IP_V4_DST if version == 4 else CTA_IP_V6_DST
        pattern = encode_nested(CTA_TUPLE_IP, encode_attribute(kind, address.packed)) + pattern
        flags |= _FILTER_IP_DST
    return pattern, flags


def _from(address: Address) -> bytes:
    kind = CTA_IP_V4_SRC if address.version == 4 else CTA_IP_V6_SRC
    return encode_nested(CTA_TUPLE_IP, encode_attribute(kind, address.packed))


class Flusher:
    """Forgets connections: at once what leads nowhere any more, where that is cheap, and the rest on a thread.

    What is asked for while the thread is at work it does in one go.
    """

    def __init__(self, prepare_thread: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(1, "netagent-conntrack", initializer=prepare_thread)
        self._lock = threading.Lock()
        self._waiting: list[FlushPort | FlushAddress] = []
        self._place: tuple[Conntrack, Rtnl] | None = None
        self._callers: Conntrack | None = None
        """For the thread that asks, which is always the same."""
        self._drops = True

    def flush(self, operations: Sequence[FlushPort | FlushAddress], rtnl: Rtnl) -> None:
        """Have ``operations`` carried out, now or soon. ``rtnl`` tells the host's addresses to the calling thread."""
        left = self._drop_at_once(operations, rtnl) if self._drops else operations
        if not left:
            return
        with self._lock:
            is_queued = bool(self._waiting)
            self._waiting.extend(left)
        if not is_queued:
            self._executor.submit(self._flush_waiting)

    def _drop_at_once(
        self, operations: Sequence[FlushPort | FlushAddress], rtnl: Rtnl
    ) -> Sequence[FlushPort | FlushAddress]:
        """Forget what has no place to go any more, and return the operations that are still to be done."""
        if self._callers is None:
            self._callers = Conntrack()
        gone = [
            o for o in operations if isinstance(o, FlushAddress) or (o.kept is None and o.port.first == o.port.last)
        ]
        if not gone or not 0 < self._callers.count() <= _MOST_AT_ONCE:
            return operations
        ours = [record.address for record in rtnl.addresses()]
        drops = [(o, _drops_of(o, ours)) for o in gone]
        if sum(len(each) for _, each in drops) > _DROPS_AT_ONCE:
            return operations
        failpoint.reach(FAILPOINTS[0])
        self._drops = all(self._callers.drop(*drop) for _, each in drops for drop in each)
        failpoint.reach(FAILPOINTS[1])
        # Of ports the thread finds what came to an address that is not the host's by itself, as 127.0.0.9.
        return [o for o in operations if isinstance(o, FlushPort)] if self._drops else operations

    def drained(self) -> "Future[None]":
        """Return a future that is done when all that was asked for until now has happened."""
        return self._executor.submit(lambda: None)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._executor.submit(self._close_sockets)
        self._executor.shutdown(wait=True)

    def _close_sockets(self) -> None:
        for netlink in (*(self._place or ()), *((self._callers,) if self._callers else ())):
            netlink.close()

    def _flush_waiting(self) -> None:
        time.sleep(SETTLE_S)
        with self._lock:
            operations, self._waiting = self._waiting, []
        try:
            if self._place is None:
                self._place = Conntrack(), Rtnl()
            table, rtnl = self._place
            if not table.count():
                return
            failpoint.reach(FAILPOINTS[0])
            flush_ports(table, rtnl, [o for o in operations if isinstance(o, FlushPort)])
            flush_addresses(table, [o for o in operations if isinstance(o, FlushAddress)])
            failpoint.reach(FAILPOINTS[1])
        except (NetagentError, OSError) as error:
            _log.warning("connections to former containers are still tracked: %s", error)


def _leads_nowhere(operation: FlushPort | FlushAddress) -> bool:
    if isinstance(operation, FlushAddress):
        return True
    return operation.kept is None and operation.port.first == operation.port.last


def _drops_of(operation: FlushPort | FlushAddress, ours: Iterable[Address]) -> list[tuple[int, int, bytes, int]]:
    """Return the arguments for ``Conntrack.drop``; a port on every address is one drop for each that the host has."""
    if isinstance(operation, FlushAddress):
        address = operation.address
        return [(address.version, CTA_TUPLE_REPLY, _from(address), _FILTER_IP_SRC)]
    port = operation.port
    places = [a for a in ours if a.version == port.version] if port.address is None else [port.address]
    protocol = _PROTOCOLS[port.protocol]
    return [(port.version, CTA_TUPLE_ORIG, *_to_port(port.version, protocol, port.first, a)) for a in places]


def flush_ports(table: Conntrack, rtnl: Rtnl, operations: Sequence[FlushPort]) -> None:
    """Forget the connections to each host port that are not translated to where it leads now."""
    if not operations:
        return
    ours = frozenset(record.address for record in rtnl.addresses())
    few = len(operations) <= _FILTERED_DUMPS
    seen: dict[tuple[int, int], list[Flow]] = {}
    for operation in operations:
        port, protocol = operation.port, _PROTOCOLS[operation.port.protocol]
        if few and port.first == port.last:
            flows = list(table.to_port(port.version, protocol, port=port.first, address=port.address))
        else:
            if (port.version, protocol) not in seen:
                seen[port.version, protocol] = list(table.to_port(port.version, protocol))
            flows = seen[port.version, protocol]
        table.forget(operation, (flow for flow in flows if _is_stale(flow, operation, ours)))


def flush_addresses(table: Conntrack, operations: Sequence[FlushAddress]) -> None:
    """Forget the connections that the addresses answer."""
    for operation in operations:
        table.forget(operation, table.answered_by(operation.address))


def _is_stale(flow: Flow, operation: FlushPort, ours: frozenset[Address]) -> bool:
    """Tell whether a connection is one to the host port and leads to another place than the port does now."""
    port, kept = operation.port, operation.kept
    if not port.first <= flow.port <= port.last or not _is_for(flow, port, ours):
        return False
    there = None if kept is None else (kept.address, kept.port + flow.port - port.first)
    return (flow.answerer, flow.answering_port) != there


def _is_for(flow: Flow, port: HostPort, ours: frozenset[Address]) -> bool:
    # A connection to this port of another machine passes through here too, and is not the host port's.
    if port.address is None:
        return flow.destination in ours or flow.destination.is_loopback
    return flow.destination == port.address


def _decode(message: Message) -> Flow:
    """Return the connection in ``message``; the ports are 0 where its protocol has none."""
    attributes = decode_attributes(message.body[_NFGENMSG.size :])
    original, reply = (decode_attributes(attributes[kind]) for kind in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY))
    proto, reply_proto = (decode_attributes(t[CTA_TUPLE_PROTO]) for t in (original, reply))
    addresses, reply_addresses = (decode_attributes(t[CTA_TUPLE_IP]) for t in (original, reply))
    is_v4 = CTA_IP_V4_DST in addresses
    named = (
        encode_attribute(kind, bytes(attributes[kind]))
        for kind in (CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE)
        if kind in attributes
    )
    return Flow(
        destination=ip_address(bytes(addresses[CTA_IP_V4_DST if is_v4 else CTA_IP_V6_DST])),
        port=_port(proto, CTA_PROTO_DST_PORT),
        answerer=ip_address(bytes(reply_addresses[CTA_IP_V4_SRC if is_v4 else CTA_IP_V6_SRC])),
        answering_port=_port(reply_proto, CTA_PROTO_SRC_PORT),
        family=message.body[0],
        identity=b"".join(named),
    )


def _port(proto: dict[int, memoryview], kind: int) -> int:
    return int(_PORT.unpack(proto[kind])[0]) if kind in proto else 0
