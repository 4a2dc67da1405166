"""Host ports held by sockets that nothing ever reaches, so that no other process takes a published one.

A TCP socket is bound but does not listen: connecting to it is refused, as to a free port, when the translation is not
in place. A UDP socket carries a filter that drops everything, so that datagrams which missed the translation do not
pile up in its buffer.
"""

import ctypes
import errno
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from netagent.errors import Conflict, EnvironmentProblem
from netagent.kernel import netns
from netagent.kernel.sockets import PROTOCOLS, bound_sockets
from netagent.kernel.sysctl import read_sysctl
from netagent.model.port import AutomaticPorts, PortMapping, PortSlot, overlap

_T = TypeVar("_T")
_AUTOMATIC = ("net", "ipv4", "ip_local_port_range")
_RESERVED = ("net", "ipv4", "ip_local_reserved_ports")
_FALLBACK_PORTS = (49153, 65535)
"""Docker's range for automatic ports where the kernel does not tell its own."""

_DESCRIPTORS_KEPT = 512
"""Descriptors that are left for everything but ports: clients, the store, namespaces."""

_SO_ATTACH_FILTER = 26
"""asm-generic/socket.h; Python has no name for it."""
_SO_DETACH_FILTER = 27
_BACKLOG = 128
_IPPROTO_SCTP = 132
_RETURN_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""Classic BPF, linux/filter.h: BPF_RET | BPF_K with 0 bytes kept."""
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
_NO_SUCH_PROTOCOL = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)

_TYPES = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, _IPPROTO_SCTP),
}


class SocketReservations:
    """The host ports that this process holds. Binding never blocks, so this is for the event loop's thread.

    Who may have a port is not decided here: the sockets only tell whether a process of the host has it. ``namespace``
    is the path of the network namespace whose ports are held; None stands for the process's own.
    """

    def __init__(self, *, namespace: str | None = None) -> None:
        self._namespace = namespace
        self._held: dict[PortSlot, list[socket.socket]] = {}

    def reserve(self, slot: PortSlot) -> None:
        """Hold a host port; one that is held already stays.

        Raises Conflict if a process of the host has the port, EnvironmentProblem if this machine lacks the address,
        the privilege or the descriptors.
        """
        if slot not in self._held:
            if len(self._held) >= _most_ports():
                raise EnvironmentProblem(
                    f"failed to bind host port {slot}: {len(self._held)} ports are all this process may hold",
                    hint="raise the agent's limit of open files (LimitNOFILE=)",
                )
            self._held[slot] = self._inside(lambda: _bind_all(slot))

    def release(self, slot: PortSlot) -> None:
        """Let go of a host port; one that is not held is no error."""
        for held in self._held.pop(slot, ()):
            held.close()

    def open_on_loopback6(self, slot: PortSlot) -> socket.socket | None:
        """Return a socket that takes what comes to the held port ``slot`` on ::1; None if the port is not held.

        It listens, if for TCP. Between the held socket of all addresses and this one it is bound beside it, the held
        one lets others in (SO_REUSEADDR) who ask for the same, which nobody does by accident in that moment.
        """
        held = next((each for each in self._held.get(slot, ()) if each.family == socket.AF_INET6), None)
        if held is None:
            return None
        if slot.address is not None and slot.address.is_loopback:
            opened = held.dup()
            _keep_what_comes(opened)
            if slot.protocol == "tcp":
                _listen(opened)
            return opened
        return self._inside(lambda: _open_beside(held, slot))

    def check_free(self, mapping: PortMapping) -> None:
        """Raise Conflict if a process of the host has one of the mapping's host ports, without binding any."""
        if mapping.protocol not in PROTOCOLS:
            return
        ports = mapping.host_ports
        for found in self._inside(lambda: list(bound_sockets(mapping.protocol, ports[0], ports[-1]))):
            is_everywhere = found.is_dual and found.address.is_unspecified
            if is_everywhere or overlap(mapping.host_address, found.address):
                slot = PortSlot(mapping.protocol, found.port, mapping.host_address)
                raise _failure(slot, _addresses(slot)[0], OSError(errno.EADDRINUSE, ""))

    def automatic_ports(self) -> AutomaticPorts:
        """Return where the kernel takes ports from that nobody named, Docker's range if it does not tell."""
        text = self._inside(lambda: (read_sysctl(_AUTOMATIC), read_sysctl(_RESERVED)))
        try:
            first, last = map(int, (text[0] or "").split())
        except ValueError:
            first, last = _FALLBACK_PORTS
        return AutomaticPorts(first, last, frozenset(_parse_ports(text[1] or "")))

    def close(self) -> None:
        """Let go of all ports."""
        for slot in tuple(self._held):
            self.release(slot)

    def _inside(self, function: Callable[[], _T]) -> _T:
        if self._namespace is None:
            return function()
        home, namespace = netns.open_own_namespace(), netns.open_namespace(self._namespace)
        try:
            return netns.call_inside(namespace, home, function)
        finally:
            namespace.close()
            home.close()


def _most_ports() -> int:
    """Return how many ports may be held with two descriptors each, so that the agent keeps some for its own work."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(limit - _DESCRIPTORS_KEPT, 0) // 2


def _parse_ports(text: str) -> Iterator[int]:
    """Yield the ports of net.ipv4.ip_local_reserved_ports, ``8080,9000-9010``."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _addresses(slot: PortSlot) -> tuple[str, ...]:
    return ("0.0.0.0", "::") if slot.address is None else (str(slot.address),)  # noqa: S104


def _bind_all(slot: PortSlot) -> list[socket.socket]:
    """Return bound sockets for every address of ``slot``; none for a protocol that this kernel has not."""
    sockets: list[socket.socket] = []
    try:
        for address in _addresses(slot):
            held = _bind(slot, address, is_optional=address == "::" and slot.address is None)
            if held is not None:
                sockets.append(held)
    except BaseException:
        for held in sockets:
            held.close()
        raise
    return sockets


def _bind(slot: PortSlot, address: str, *, is_optional: bool) -> socket.socket | None:
    """Return a bound socket, None where the kernel lacks the protocol or, if ``is_optional``, the address family."""
    try:
        return _bind_exclusively(slot, address)
    except OSError as error:
        if error.errno in _NO_SUCH_PROTOCOL or (is_optional and error.errno in _NO_SUCH_FAMILY):
            return None
        if error.errno == errno.EADDRINUSE and slot.protocol == "tcp":
            held = _bind_over_leftovers(slot, address)
            if held is not None:
                return held
        raise _failure(slot, address, error) from None


def _open(slot: PortSlot, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, *_TYPES[slot.protocol])
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return opened


def _bind_exclusively(slot: PortSlot, address: str) -> socket.socket:
    opened = _open(slot, address)
    try:
        if slot.protocol == "udp":
            _drop_everything(opened)
        opened.bind((address, slot.port))
    except BaseException:
        opened.close()
        raise
    return opened


def _bind_over_leftovers(slot: PortSlot, address: str) -> socket.socket | None:
    """Return a socket bound although closed connections linger on the port (TIME_WAIT); None if somebody has it.

    With SO_REUSEADDR bind() passes over leftovers, and over sockets that have the option but do not listen; listen()
    fails if one of those does. As this socket then listens, it drops whatever comes.
    """
    opened = _open(slot, address)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _drop_everything(opened)
        opened.bind((address, slot.port))
        opened.listen(1)
    except OSError:
        opened.close()
        return None
    return opened


def _open_beside(held: socket.socket, slot: PortSlot) -> socket.socket:
    opened = _open(slot, "::1")
    # One that was bound over leftovers listens, and beside such a one nobody is let in.
    with suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("::1", slot.port))
        if slot.protocol == "tcp":
            # Looks for rivals once more, so before the held socket refuses them again.
            _listen(opened)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        opened.close()
        raise _failure(slot, "::1", error) from None
    finally:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return opened


def _listen(opened: socket.socket) -> None:
    # Inherited by connections: what lingers of them does not hold the port. Nobody binds beside one that listens.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.listen(_BACKLOG)


def _keep_what_comes(target: socket.socket) -> None:
    with suppress(OSError):
        target.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _drop_everything(target: socket.socket) -> None:
    program = ctypes.create_string_buffer(_RETURN_NOTHING)
    # struct sock_fprog: a count of instructions and a pointer to them, with the machine's padding in between.
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))


def _failure(slot: PortSlot, address: str, error: OSError) -> Conflict | EnvironmentProblem:
    spelled = f"[{address}]" if ":" in address else address
    where = f"failed to bind host port {spelled}:{slot.port}/{slot.protocol}"
    if error.errno == errno.EADDRINUSE:
        option = {"tcp": "tn", "udp": "un", "sctp": "Sn"}[slot.protocol]
        return Conflict(
            f"{where}: address already in use",
            hint=f"ss -l{option}p 'sport = :{slot.port}' shows by whom",
            port=slot.port,
        )
    hint = {
        errno.EADDRNOTAVAIL: f"no interface of this host has {address}",
        errno.EACCES: "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
    }.get(error.errno or 0, "")
    return EnvironmentProblem(f"{where}: {os.strerror(error.errno or 0).lower()}", hint=hint)
