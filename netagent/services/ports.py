"""Host ports: who has which, the choice of free ones, and the sockets that keep them.

Who may have a port is decided here and nowhere else, against what is published; whether a process of the host has it,
the kernel says. Few ports are bound before the answer. Of many at once the kernel is asked who has any, which costs
the same for one as for a thousand, and the sockets follow when the answer is out.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from netagent.errors import Conflict, Exhausted, InvalidRequest, NetagentError
from netagent.model.address import Address
from netagent.model.container import ContainerKind
from netagent.model.network import Network
from netagent.model.port import PortMapping, PortSlot
from netagent.reconcile.ports import PortReservations
from netagent.store.journal import Journal

log = logging.getLogger("netagent.ports")

BOUND_AT_ONCE = 32
"""Ports of one mapping that are bound before the answer."""

SETTLE_S = 0.05
"""How long the binding of the others waits, so that it does not hold up the answer."""

LEND_S = 15.0
"""How long a runtime may take to bind a port itself, after it was told that its container is connected."""


class PortService:
    """The host ports of this host.

    ``bindings`` are the host addresses of ports for which neither their user nor their network names one, all if
    empty. ``let_go`` is told of every port before it is free; without it nothing here serves ::1, to which the kernel
    cannot translate.
    """

    def __init__(
        self,
        journal: Journal,
        reservations: PortReservations,
        *,
        bindings: Sequence[Address] = (),
        let_go: Callable[[PortSlot], None] | None = None,
    ) -> None:
        self._journal = journal
        self._reservations = reservations
        self._bindings = tuple(bindings)
        self._let_go = let_go
        self._next: dict[tuple[str, Address | None], int] = {}
        self._held: dict[tuple[str, int], list[PortMapping]] = {}
        self._unbound: dict[PortSlot, None] = {}
        self._lent: dict[PortSlot, float] = {}
        self._wake = asyncio.Event()

    def check(self, mappings: Iterable[PortMapping], network: Network) -> None:
        """Refuse host ports that cannot be had now, as ``take`` would, and change nothing."""
        self.release(self.take((mapping for mapping in mappings if not mapping.is_wish), network))

    def take(self, mappings: Iterable[PortMapping], network: Network) -> tuple[PortMapping, ...]:
        """Hold the host ports of ``mappings`` and return them with what was left open filled in; all or none.

        Conflict in Docker's words if a container has one, or a process of the host.
        """
        asked = tuple(mappings)
        taken: dict[PortMapping, tuple[PortMapping, ...]] = {}
        try:
            # Those that name their port first: a wish would take it from them.
            for mapping in sorted(asked, key=lambda mapping: mapping.is_wish):
                taken[mapping] = self._take_one(mapping, self._addresses(mapping, network))
        except BaseException:
            self.release(held for group in taken.values() for held in group)
            raise
        return tuple(held for mapping in asked for held in taken[mapping])

    def _addresses(self, mapping: PortMapping, network: Network) -> Sequence[Address | None]:
        """Return the host addresses of a mapping: its own, else its network's, else this host's; None is all."""
        given = (mapping.host_address,) if mapping.host_address is not None else ()
        addresses = given or network.host_bindings or self._bindings
        if self._let_go is None and any(a.version == 6 and a.is_loopback for a in addresses):
            raise InvalidRequest(
                "port cannot be published on [::1]: the kernel does not translate to or from it",
                hint="set loopback_proxy = true in the agent's configuration, or publish on 127.0.0.1",
            )
        return addresses or (None,)

    def _take_one(self, mapping: PortMapping, addresses: Sequence[Address | None]) -> tuple[PortMapping, ...]:
        """Hold one mapping on all of ``addresses``, with one host port for all of them."""
        if not mapping.is_wish:
            return self._hold_all(mapping, addresses)
        for port in self._candidates(mapping, addresses[0]):
            chosen = replace(mapping, host_port=port, choices=1)
            with suppress(Conflict):
                return self._hold_all(chosen, addresses)
        if mapping.host_port:
            last = mapping.host_port + mapping.choices - 1
            hint = f"none of {mapping.host_port}-{last}/{mapping.protocol} is free; name a wider range"
        else:
            hint = "widen net.ipv4.ip_local_port_range, or name the host port"
        raise Exhausted("all ports are allocated", hint=hint)

    def _candidates(self, mapping: PortMapping, address: Address | None) -> Iterator[int]:
        """Yield the host ports that a wish may get: of its range, else upwards from the last one given."""
        if mapping.host_port:
            yield from range(mapping.host_port, mapping.host_port + mapping.choices)
            return
        first, last, reserved = self._reservations.automatic_ports()
        key = (mapping.protocol, address)
        start = self._next.get(key, first)
        start = start if first <= start <= last else first
        for port in (*range(start, last + 1), *range(first, start)):
            if port not in reserved:
                self._next[key] = port + 1
                yield port

    def _hold_all(self, mapping: PortMapping, addresses: Sequence[Address | None]) -> tuple[PortMapping, ...]:
        held: list[PortMapping] = []
        try:
            for address in addresses:
                self._hold(at := replace(mapping, host_address=address))
                held.append(at)
        except BaseException:
            self.release(held)
            raise
        return tuple(held)

    def _hold(self, mapping: PortMapping) -> None:
        self._refuse_used(mapping)
        slots = tuple(mapping.slots)
        at_once = slots
        if len(slots) > BOUND_AT_ONCE:
            self._reservations.check_free(mapping)
            # One is bound all the same: it tells whether the address is there and binding is allowed.
            at_once = slots[:1]
        bound: list[PortSlot] = []
        try:
            for slot in at_once:
                self._reservations.reserve(slot)
                bound.append(slot)
        except BaseException:
            for slot in bound:
                self._reservations.release(slot)
            raise
        self._bind_later(slots[len(at_once) :])
        self._note(mapping)

    def _note(self, mapping: PortMapping) -> None:
        for port in mapping.host_ports:
            self._held.setdefault((mapping.protocol, port), []).append(mapping)

    def _refuse_used(self, mapping: PortMapping) -> None:
        for port in mapping.host_ports:
            for other in self._held.get((mapping.protocol, port), ()):
                if mapping.collides(other):
                    raise self._in_use(mapping, port)

    def _in_use(self, mapping: PortMapping, port: int) -> Conflict:
        one = replace(mapping, host_port=port, count=1)
        users = (e for e in self._journal.endpoints.values() if e.in_kernel and any(map(one.collides, e.ports)))
        user = next(users, None)
        where = PortSlot(mapping.protocol, port, mapping.host_address).where
        return Conflict(
            f"Bind for {where} failed: port is already allocated",
            hint=f"{f'container {user.container_name} has it; ' if user else ''}choose another host port",
            port=port,
        )

    def release(self, mappings: Iterable[PortMapping]) -> None:
        """Let go of host ports; those that are not held are no error. A part of a mapping that is held is one too."""
        for mapping in mappings:
            for slot in mapping.slots:
                key = (slot.protocol, slot.port)
                holders = self._held.get(key, [])
                holder = next((h for h in holders if h.host_address == slot.address), None)
                if holder is None:
                    continue
                holders.remove(holder)
                if not holders:
                    del self._held[key]
                if self._lent.pop(slot, None) is not None:
                    continue
                if slot in self._unbound:
                    del self._unbound[slot]
                else:
                    self._free(slot)

    def lend(self, mappings: Iterable[PortMapping]) -> None:
        """Let the runtime that asked for these ports bind them too; what it leaves is held again after ``LEND_S``.

        Podman and CRI-O hold the ports of their containers themselves, and do so after the container is connected.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + LEND_S
        slots = [slot for mapping in mappings for slot in mapping.slots if slot not in self._unbound]
        for slot in slots:
            self._free(slot)
            self._lent[slot] = until
        if slots:
            loop.call_at(until, self._take_back, slots, until)

    def _take_back(self, slots: Iterable[PortSlot], until: float) -> None:
        for slot in slots:
            if self._lent.get(slot) == until:
                del self._lent[slot]
                for problem in self._bind((slot,)):
                    log.debug("left to the runtime: %s", problem)

    def _free(self, slot: PortSlot) -> None:
        if self._let_go is not None:
            self._let_go(slot)
        self._reservations.release(slot)

    def restore(self) -> list[str]:
        """Hold the ports of all endpoints in the journal again; return what could not be had, a line each.

        A port that a process took while the agent was away goes on being published: its packets are translated
        before they reach any socket. Those of a runtime's containers may be held by the runtime.
        """
        lost: list[str] = []
        for endpoint in self._journal.endpoints.values():
            for mapping in endpoint.ports if endpoint.in_kernel else ():
                self._note(mapping)
                slots = tuple(mapping.slots)
                if len(slots) > BOUND_AT_ONCE:
                    self._bind_later(slots)
                    continue
                problems = [f"{endpoint.container_name}: {problem}" for problem in self._bind(slots)]
                container = self._journal.containers.get(endpoint.container_id)
                if container is None or container.kind is not ContainerKind.CNI:
                    lost.extend(problems)
        return lost

    def _bind_later(self, slots: Sequence[PortSlot]) -> None:
        self._unbound.update(dict.fromkeys(slots))
        if slots:
            self._wake.set()

    def _bind(self, slots: Iterable[PortSlot]) -> Iterator[str]:
        for slot in slots:
            try:
                self._reservations.reserve(slot)
            except NetagentError as error:
                yield error.message

    async def run(self) -> None:
        """Bind the ports that were left for later, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(SETTLE_S)
            problems: list[str] = []
            while slots := tuple(islice(self._unbound, BOUND_AT_ONCE)):
                for slot in slots:
                    del self._unbound[slot]
                problems.extend(self._bind(slots))
                await asyncio.sleep(0)
            if problems:
                log.warning("%d host ports are published but not reserved, the first: %s", len(problems), problems[0])
