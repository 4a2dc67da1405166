"""Published ports on ``[::1]``, with ``loopback_proxy = true``: what is forwarded follows from the journal.

A port is opened some time after it was published and closed before it is free again: ``let_go`` is part of giving a
host port back.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress

from netagent.errors import NetagentError
from netagent.loopback.client import LoopbackForwarder
from netagent.loopback.control import Way
from netagent.model.address import parse_address
from netagent.model.endpoint import Endpoint
from netagent.model.port import PortMapping, PortSlot
from netagent.reconcile.ports import PortReservations
from netagent.store.journal import Journal

log = logging.getLogger("netagent.loopback")

LOOPBACK6 = parse_address("::1")
EVERYWHERE6 = parse_address("::")
LOOK_EVERY_S = 1.0
"""How often it is looked whether the process is still there, and whether sockets that come later have come."""


class LoopbackService:
    """One per agent that serves ``[::1]``."""

    def __init__(self, journal: Journal, reservations: PortReservations, forwarder: LoopbackForwarder) -> None:
        self._journal = journal
        self._reservations = reservations
        self._forwarder = forwarder
        self._served: dict[tuple[str, int], Way] = {}
        self._wake = asyncio.Event()

    def request(self) -> None:
        """Ask for what is forwarded to be brought up to date soon."""
        self._wake.set()

    def let_go(self, slot: PortSlot) -> None:
        """Forward a host port no more, now."""
        if self._served.pop((slot.protocol, slot.port), None) is not None:
            self._forwarder.close_ports([(slot.protocol, slot.port)])

    async def run(self) -> None:
        """Keep what is forwarded up to date, until cancelled; then end the process."""
        try:
            while True:
                try:
                    self._update()
                except NetagentError as error:
                    log.error("%s", error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            self._forwarder.stop()

    def _update(self) -> None:
        if not self._forwarder.is_running:
            self._served.clear()
        wanted = {(way.protocol, way.port): (way, slot) for way, slot in self._wanted()}
        stale = [key for key, way in self._served.items() if key not in wanted or wanted[key][0] != way]
        if stale and wanted:
            self._forwarder.close_ports(stale)
        if not wanted:
            self._forwarder.stop()
        for key in stale:
            del self._served[key]
        opened = []
        try:
            for key, (way, slot) in wanted.items():
                if key in self._served:
                    continue
                listening = self._reservations.open_on_loopback6(slot)
                if listening is not None:
                    opened.append((way, listening))
            if opened:
                self._forwarder.open(opened)
                self._served |= {(way.protocol, way.port): way for way, _ in opened}
        finally:
            for _, listening in opened:
                listening.close()

    def _wanted(self) -> Iterator[tuple[Way, PortSlot]]:
        for endpoint in self._journal.endpoints.values():
            for mapping in endpoint.ports if endpoint.in_kernel else ():
                if _is_on_loopback6(mapping):
                    yield from _ways(endpoint, mapping)


def _is_on_loopback6(mapping: PortMapping) -> bool:
    is_here = mapping.host_address in (None, LOOPBACK6, EVERYWHERE6)
    is_let_in = not mapping.sources or any(s.version == 6 and LOOPBACK6 in s for s in mapping.sources)
    return is_here and is_let_in and mapping.protocol in ("tcp", "udp")


def _ways(endpoint: Endpoint, mapping: PortMapping) -> Iterator[tuple[Way, PortSlot]]:
    target = endpoint.address_of(6) or endpoint.address_of(4)
    if target is not None:
        for slot, port in zip(mapping.slots, mapping.container_ports, strict=True):
            yield Way(slot.protocol, slot.port, str(target), port), slot
