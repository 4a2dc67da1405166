"""Host ports: who has which, the choice of free ones, and the sockets that keep them."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from netagent.errors import Conflict, Exhausted, NetagentError
from netagent.model.port import PortMapping
from netagent.reconcile.ports import PortReservations
from netagent.store.journal import Journal


class PortService:
    """The host ports of this host. ``ephemeral`` is the range that automatic ports come from, both ends included."""

    def __init__(self, journal: Journal, reservations: PortReservations, ephemeral: tuple[int, int]) -> None:
        self._journal = journal
        self._reservations = reservations
        self._first, self._last = ephemeral
        self._next = self._first
        self._held: dict[tuple[str, int], list[PortMapping]] = {}

    def check(self, mappings: Iterable[PortMapping]) -> None:
        """Refuse host ports that cannot be had now, as ``take`` would, and change nothing."""
        self.release(self.take(mapping for mapping in mappings if mapping.host_port))

    def take(self, mappings: Iterable[PortMapping]) -> tuple[PortMapping, ...]:
        """Hold the host ports of ``mappings`` and return them with the automatic ones filled in; all or none.

        Conflict in Docker's words if a container has one, or a process of the host.
        """
        taken: list[PortMapping] = []
        try:
            taken.extend(self._take_one(mapping) for mapping in mappings)
        except BaseException:
            self.release(taken)
            raise
        return tuple(taken)

    def _take_one(self, mapping: PortMapping) -> PortMapping:
        if mapping.host_port:
            self._refuse_used(mapping)
            self._hold(mapping)
            return mapping
        for _ in range(self._last - self._first + 1):
            candidate = replace(mapping, host_port=self._next)
            self._next = self._first if self._next == self._last else self._next + 1
            if not self._is_used(candidate):
                with suppress(Conflict):
                    self._hold(candidate)
                    return candidate
        raise Exhausted("all ports are allocated", hint="widen net.ipv4.ip_local_port_range, or name the host port")

    def _hold(self, mapping: PortMapping) -> None:
        self._reservations.reserve(mapping)
        self._held.setdefault((mapping.protocol, mapping.host_port), []).append(mapping)

    def _is_used(self, mapping: PortMapping) -> bool:
        return any(mapping.collides(other) for other in self._held.get((mapping.protocol, mapping.host_port), ()))

    def _refuse_used(self, mapping: PortMapping) -> None:
        if not self._is_used(mapping):
            return
        users = (e for e in self._journal.endpoints.values() if e.in_kernel and any(map(mapping.collides, e.ports)))
        user = next(users, None)
        where = "0.0.0.0" if mapping.host_address is None else mapping.host_address  # noqa: S104
        raise Conflict(
            f"Bind for {where}:{mapping.host_port} failed: port is already allocated",
            hint=f"{f'container {user.container_name} has it; ' if user else ''}choose another host port",
            port=mapping.host_port,
        )

    def release(self, mappings: Iterable[PortMapping]) -> None:
        """Let go of host ports; those that are not held are no error."""
        for mapping in mappings:
            held = self._held.get((mapping.protocol, mapping.host_port), [])
            if mapping in held:
                held.remove(mapping)
                self._reservations.release(mapping)

    def restore(self) -> list[str]:
        """Hold the ports of all endpoints in the journal again; return what could not be had, a line each.

        A port that a process took while the agent was away goes on being published: its packets are translated
        before they reach any socket.
        """
        lost: list[str] = []
        for endpoint in self._journal.endpoints.values():
            if not endpoint.in_kernel:
                continue
            for mapping in endpoint.ports:
                self._held.setdefault((mapping.protocol, mapping.host_port), []).append(mapping)
                try:
                    self._reservations.reserve(mapping)
                except NetagentError as error:
                    lost.append(f"{endpoint.container_name}: {error.message}")
        return lost
