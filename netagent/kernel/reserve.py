"""Host ports held by sockets that nothing ever reaches, so that no other process takes a published one.

A TCP socket is bound but does not listen: connecting to it is refused, as to a free port, when the translation is not
in place. A UDP socket carries a filter that drops everything, so that datagrams which missed the translation do not
pile up in its buffer.
"""

import ctypes
import errno
import os
import socket
import struct

from netagent.errors import Conflict, EnvironmentProblem
from netagent.kernel import netns
from netagent.model.port import PortMapping

_SO_ATTACH_FILTER = 26
"""asm-generic/socket.h; Python has no name for it."""
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

    ``namespace`` is the path of the network namespace whose ports are held; None stands for the process's own.
    """

    def __init__(self, *, namespace: str | None = None) -> None:
        self._namespace = namespace
        self._held: dict[PortMapping, list[socket.socket]] = {}
        self._by_port: dict[tuple[str, int], list[PortMapping]] = {}

    def reserve(self, mapping: PortMapping) -> None:
        """Hold the host port of ``mapping``; one that is held already stays.

        Raises Conflict if another mapping or a process of the host has the port, EnvironmentProblem if this machine
        lacks the address or the privilege.
        """
        if mapping in self._held:
            return
        rivals = self._by_port.setdefault((mapping.protocol, mapping.host_port), [])
        other = next((m for m in rivals if m.collides(mapping)), None)
        if other is not None:
            raise Conflict(
                f"failed to bind host port {mapping.host_port}/{mapping.protocol}: port is already allocated",
                hint=f"it is published as {other}",
                port=mapping.host_port,
            )
        self._held[mapping] = self._bind_all(mapping)
        rivals.append(mapping)

    def release(self, mapping: PortMapping) -> None:
        """Let go of the host port of ``mapping``; one that is not held is no error."""
        if mapping in self._held:
            self._by_port[mapping.protocol, mapping.host_port].remove(mapping)
        for held in self._held.pop(mapping, ()):
            held.close()

    def close(self) -> None:
        """Let go of all ports."""
        for mapping in tuple(self._held):
            self.release(mapping)

    def _bind_all(self, mapping: PortMapping) -> list[socket.socket]:
        if self._namespace is None:
            return _bind_all(mapping)
        home, namespace = netns.open_own_namespace(), netns.open_namespace(self._namespace)
        try:
            return netns.call_inside(namespace, home, lambda: _bind_all(mapping))
        finally:
            namespace.close()
            home.close()


def _bind_all(mapping: PortMapping) -> list[socket.socket]:
    """Return bound sockets for every address of ``mapping``; none for a protocol that this kernel has not."""
    everywhere = ["0.0.0.0", "::"]  # noqa: S104
    wanted = everywhere if mapping.host_address is None else [str(mapping.host_address)]
    sockets: list[socket.socket] = []
    try:
        for address in wanted:
            held = _bind(mapping, address, is_optional=address == "::" and mapping.host_address is None)
            if held is not None:
                sockets.append(held)
    except BaseException:
        for held in sockets:
            held.close()
        raise
    return sockets


def _bind(mapping: PortMapping, address: str, *, is_optional: bool) -> socket.socket | None:
    """Return a bound socket, None where the kernel lacks the protocol or, if ``is_optional``, the address family."""
    try:
        return _bind_exclusively(mapping, address)
    except OSError as error:
        if error.errno in _NO_SUCH_PROTOCOL or (is_optional and error.errno in _NO_SUCH_FAMILY):
            return None
        if error.errno == errno.EADDRINUSE and mapping.protocol == "tcp":
            held = _bind_over_leftovers(mapping, address)
            if held is not None:
                return held
        raise _failure(mapping, address, error) from None


def _open(mapping: PortMapping, address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, *_TYPES[mapping.protocol])
    if family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return opened


def _bind_exclusively(mapping: PortMapping, address: str) -> socket.socket:
    opened = _open(mapping, address)
    try:
        if mapping.protocol == "udp":
            _drop_everything(opened)
        opened.bind((address, mapping.host_port))
    except BaseException:
        opened.close()
        raise
    return opened


def _bind_over_leftovers(mapping: PortMapping, address: str) -> socket.socket | None:
    """Return a socket bound although closed connections linger on the port (TIME_WAIT); None if somebody has it.

    With SO_REUSEADDR bind() passes over leftovers, and over sockets that have the option but do not listen; listen()
    fails if one of those does. As this socket then listens, it drops whatever comes.
    """
    opened = _open(mapping, address)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _drop_everything(opened)
        opened.bind((address, mapping.host_port))
        opened.listen(1)
    except OSError:
        opened.close()
        return None
    return opened


def _drop_everything(target: socket.socket) -> None:
    program = ctypes.create_string_buffer(_RETURN_NOTHING)
    # struct sock_fprog: a count of instructions and a pointer to them, with the machine's padding in between.
    target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))


def _failure(mapping: PortMapping, address: str, error: OSError) -> Conflict | EnvironmentProblem:
    spelled = f"[{address}]" if ":" in address else address
    where = f"failed to bind host port {spelled}:{mapping.host_port}/{mapping.protocol}"
    if error.errno == errno.EADDRINUSE:
        option = {"tcp": "tn", "udp": "un", "sctp": "Sn"}[mapping.protocol]
        return Conflict(
            f"{where}: address already in use",
            hint=f"ss -l{option}p 'sport = :{mapping.host_port}' shows by whom",
            port=mapping.host_port,
        )
    hint = {
        errno.EADDRNOTAVAIL: f"no interface of this host has {address}",
        errno.EACCES: "ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
    }.get(error.errno or 0, "")
    return EnvironmentProblem(f"{where}: {os.strerror(error.errno or 0).lower()}", hint=hint)
