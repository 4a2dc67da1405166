"""Tells neighbours which MAC an address is at now: gratuitous ARP and unsolicited neighbour advertisements.

A neighbour that spoke to the address's former owner would go on sending there until its entry expires, some 40 s.
The frames leave from the interface that has the address, so the bridge learns the port with them, and the host itself
hears them as well.

Closing a packet socket waits for RCU, 14 ms here (packet_release, net/packet/af_packet.c). So one thread sends while
an attach answers, in the order in which it was asked, and others close.
"""

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import IPv6Address

from netagent.errors import NetagentError
from netagent.kernel import netns
from netagent.kernel.netns import Namespace
from netagent.kernel.sandboxes import open_sandbox
from netagent.plan.desired import HOST, Announcement
from netagent.plan.operation import Announce

_log = logging.getLogger("netagent.kernel")

_OPEN_AT_ONCE = 64
_CLOSERS = 8
"""Sockets that are closed side by side wait for one RCU grace period, not for one each."""

_ETHERNET = struct.Struct("!6s6sH")
_ETH_P_ARP = 0x0806
_ETH_P_IPV6 = 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = bytes.fromhex("333300000001")
"""RFC 2464, 7."""
_IPPROTO_ICMPV6 = 58
_OVERRIDE = 0x20000000


class Announcer:
    """Sends announcements in order, on a thread of its own."""

    def __init__(self, prepare_thread: Callable[[], None]) -> None:
        self._sender = ThreadPoolExecutor(1, "netagent-announce", initializer=prepare_thread)
        self._closers = ThreadPoolExecutor(_CLOSERS, "netagent-close")
        self._open = threading.BoundedSemaphore(_OPEN_AT_ONCE)
        self._home: Namespace | None = None
        self._own: socket.socket | None = None

    def announce(self, operations: Iterable[Announce]) -> None:
        """Have ``operations`` carried out soon; returns at once."""
        self._sender.submit(self._send_all, tuple(operation.announcement for operation in operations))

    def drained(self) -> "Future[None]":
        """Return a future that is done when all that was asked for until now was sent."""
        return self._sender.submit(lambda: None)

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        self._sender.submit(self._close_own)
        self._sender.shutdown(wait=True)
        self._closers.shutdown(wait=True)

    def _close_own(self) -> None:
        if self._own is not None:
            self._own.close()
        if self._home is not None:
            self._home.close()

    def _send_all(self, announcements: tuple[Announcement, ...]) -> None:
        sandboxes: dict[str, list[Announcement]] = {}
        for announcement in announcements:
            sandboxes.setdefault(announcement.where, []).append(announcement)
        for where, members in sandboxes.items():
            try:
                if where == HOST:
                    self._send_from_host(members)
                else:
                    self._send_from_sandbox(where, members)
            except (NetagentError, OSError) as error:
                # Gone again already, most likely; its neighbours find out by themselves, only later.
                _log.info("not announced: %s: %s", ", ".join(map(str, members)), error)

    def _send_from_host(self, announcements: Iterable[Announcement]) -> None:
        if self._own is None:
            self._own = _open_socket()
        for announcement in announcements:
            _send(self._own, announcement)

    def _send_from_sandbox(self, path: str, announcements: Iterable[Announcement]) -> None:
        if self._home is None:
            self._home = netns.open_own_namespace()
        namespace = open_sandbox(path, self._home)
        self._open.acquire()
        try:
            packets = netns.call_inside(namespace, self._home, _open_socket)
        except BaseException:
            self._open.release()
            raise
        finally:
            namespace.close()
        try:
            for announcement in announcements:
                _send(packets, announcement)
        finally:
            self._closers.submit(self._close_later, packets)

    def _close_later(self, packets: socket.socket) -> None:
        packets.close()
        self._open.release()


def _open_socket() -> socket.socket:
    # Protocol 0: it receives nothing, so it costs the namespace's traffic nothing.
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)


def _send(packets: socket.socket, announcement: Announcement) -> None:
    frame = announcement_frame(announcement)
    protocol = _ETH_P_ARP if announcement.address.version == 4 else _ETH_P_IPV6
    packets.sendto(frame, (announcement.device, protocol))


def announcement_frame(announcement: Announcement) -> bytes:
    """Return the Ethernet frame that announces an address: ARP for IPv4, neighbour discovery for IPv6."""
    mac = bytes.fromhex(announcement.mac.replace(":", ""))
    if isinstance(announcement.address, IPv6Address):
        packet = _neighbour_advertisement(mac, announcement.address)
        return _ETHERNET.pack(_ALL_NODES_MAC, mac, _ETH_P_IPV6) + packet
    # An ARP announcement (RFC 5227, 2.3): a request whose sender and target address are the same.
    own = announcement.address.packed
    packet = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, own, bytes(6), own)
    return _ETHERNET.pack(_BROADCAST, mac, _ETH_P_ARP) + packet


def _neighbour_advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """Return an unsolicited neighbour advertisement to all nodes, with the override flag (RFC 4861, 7.2.6)."""
    body = struct.pack("!I16sBB6s", _OVERRIDE, address.packed, 2, 1, mac)
    length = 4 + len(body)
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!II", length, _IPPROTO_ICMPV6)
    checksum = _checksum(pseudo + struct.pack("!BBH", 136, 0, 0) + body)
    header = struct.pack("!IHBB", 6 << 28, length, _IPPROTO_ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return header + struct.pack("!BBH", 136, 0, checksum) + body


def _checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
