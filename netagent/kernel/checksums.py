"""Checksums of UDP that the kernel leaves to a device (CHECKSUM_PARTIAL), and whether they arrive right.

A datagram to a port that nobody has is answered by an error if its checksum is right and dropped if not
(__udp4_lib_rcv, net/ipv4/udp.c). One is sent as programs send it, its checksum left to the first device that offers to
work it out; one more with a checksum worked out here, where the first was not answered. A peer that answers neither
has a firewall, and nothing is known.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from netagent.kernel.probe import internet_checksum, readable
from netagent.model.address import Address

_FIRST_PORT, _PORTS = 33434, 64
"""Where traceroute asks: closed on most machines, and open in many firewalls."""
_OWN_PORT = 33433
_UDP = struct.Struct("!HHHH")
_PAYLOAD = b"netagent: is the checksum right?"
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_SIOCETHTOOL = 0x8946
_ETHTOOL_GTXCSUM, _ETHTOOL_STXCSUM = 0x16, 0x17
"""include/uapi/linux/sockios.h and ethtool.h."""
_VALUE = struct.Struct("=II")
_IFREQ = struct.Struct("@16sP16x")


def corrupted(pairs: Sequence[tuple[Address, Address]]) -> frozenset[Address]:
    """Return the targets among ``pairs`` of source and target that checksums reach only if they were worked out here.

    It blocks two seconds where any does not answer.
    """
    port = _FIRST_PORT + os.urandom(1)[0] % _PORTS
    left_to_device = _refusing(pairs, partial(_as_programs_do, port=port))
    rest = [pair for pair in pairs if pair[1] not in left_to_device]
    return _refusing(rest, partial(_worked_out_here, port=port)) if rest else frozenset()


def has_offload(device: str) -> bool:
    """Tell whether a device offers to work out checksums of what it sends; False also for one that is gone."""
    try:
        return bool(_ethtool(device, _ETHTOOL_GTXCSUM, 0))
    except OSError:
        return False


def set_offload(device: str, *, on: bool) -> None:
    """Let a device offer that, or not, as ``ethtool -K DEVICE tx off`` does. Raises OSError."""
    _ethtool(device, _ETHTOOL_STXCSUM, int(on))


def _ethtool(device: str, command: int, value: int) -> int:
    data = ctypes.create_string_buffer(_VALUE.pack(command, value))
    request = _IFREQ.pack(device.encode(), ctypes.addressof(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    found: int = _VALUE.unpack_from(data)[1]
    return found


def _refusing(
    pairs: Iterable[tuple[Address, Address]], send: Callable[[Address, Address], socket.socket]
) -> frozenset[Address]:
    """Return the targets that say within a second that nobody has the port which ``send`` sends to."""
    waiting: dict[socket.socket, Address] = {}
    refused: set[Address] = set()
    try:
        for source, target in pairs:
            try:
                waiting[send(source, target)] = target
            except OSError:
                continue
        for ready in readable(lambda: [sock for sock, target in waiting.items() if target not in refused]):
            for sock in ready:
                try:
                    sock.recv(256)
                except ConnectionRefusedError:
                    refused.add(waiting[sock])
                except OSError:
                    continue
        return frozenset(refused)
    finally:
        for sock in waiting:
            sock.close()


def _connected(kind: int, protocol: int, source: Address, target: Address, port: int) -> socket.socket:
    sock = socket.socket(_FAMILIES[target.version], kind | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.bind((str(source), 0))
        sock.connect((str(target), port))
    except OSError:
        sock.close()
        raise
    return sock


def _as_programs_do(source: Address, target: Address, *, port: int) -> socket.socket:
    sock = _connected(socket.SOCK_DGRAM, 0, source, target, port)
    sock.send(_PAYLOAD)
    return sock


def _worked_out_here(source: Address, target: Address, *, port: int) -> socket.socket:
    """Send through a raw socket, to which errors about its datagrams come as they do to others (raw_err)."""
    sock = _connected(socket.SOCK_RAW, socket.IPPROTO_UDP, source, target, 0)
    length = _UDP.size + len(_PAYLOAD)
    pseudo = source.packed + target.packed + struct.pack("!II", length, socket.IPPROTO_UDP)
    head = _UDP.pack(_OWN_PORT, port, length, 0)
    checksum = internet_checksum(pseudo + head + _PAYLOAD) or 0xFFFF
    sock.send(_UDP.pack(_OWN_PORT, port, length, checksum) + _PAYLOAD)
    return sock
