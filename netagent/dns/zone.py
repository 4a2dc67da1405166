"""Which names exist in which network, and who may ask for them: an index over what the agent has told."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from netagent.dns.control import NameRecord, NetworkRecord
from netagent.dns.message import encode_name
from netagent.model.address import Prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One endpoint as answers need it; addresses are packed. ``target`` is its first name in wire form."""

    container: str
    v4: tuple[bytes, ...]
    v6: tuple[bytes, ...]
    ports: frozenset[tuple[int, str]]
    target: bytes | None


@dataclass(slots=True, kw_only=True)
class NetworkZone:
    """The names of one network. Several endpoints may share one; ``*.app`` stands for everything below ``app``."""

    name: bytes = b""
    prefixes: tuple[Prefix, ...] = ()
    forwards: bool = False
    names: dict[bytes, dict[str, Entry]] = field(default_factory=dict)
    owners: dict[bytes, dict[str, Entry]] = field(default_factory=dict)
    """By packed address."""

    def find(self, name: bytes) -> tuple[Entry, ...]:
        """Return the entries that ``name`` (lower case) stands for: exactly, with the network's name, by wildcard."""
        found = self.names.get(name)
        if found is None and self.name and name.endswith(b"." + self.name):
            found = self.names.get(name[: -len(self.name) - 1])
        rest = name
        while found is None and b"." in rest:
            rest = rest.partition(b".")[2]
            found = self.names.get(b"*." + rest)
        return tuple(found.values()) if found else ()

    def holds(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Tell whether ``address`` lies in the network."""
        return any(address.version == prefix.version and address in prefix for prefix in self.prefixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one client may know: its networks, the one it asks on first. ``forwards``: other names go upstream."""

    zones: tuple[NetworkZone, ...]
    forwards: bool

    def find(self, name: bytes) -> tuple[Entry, ...]:
        """Return the entries of ``name`` in the first network that knows it."""
        return next((found for zone in self.zones if (found := zone.find(name))), ())

    def owners(self, address: bytes) -> tuple[Entry, ...]:
        """Return whose ``address`` (packed) it is."""
        return next((tuple(found.values()) for zone in self.zones if (found := zone.owners.get(address))), ())


class Zones:
    """All networks of this host."""

    def __init__(self) -> None:
        self._zones: dict[str, NetworkZone] = {}
        self._records: dict[str, NameRecord] = {}
        self._listeners: dict[str, NetworkZone] = {}
        self._networks_of: dict[str, dict[str, str]] = {}
        self._clients: dict[tuple[str, str], str] = {}
        self._views: dict[tuple[str, str], View | None] = {}

    @property
    def gateways(self) -> frozenset[str]:
        """The addresses to answer on."""
        return frozenset(self._listeners)

    def set_networks(self, networks: Iterable[NetworkRecord]) -> None:
        """Take over what networks there are; names of others are kept, but nobody may ask for them."""
        self._views.clear()
        self._listeners.clear()
        self._zones = {identity: zone for identity, zone in self._zones.items() if zone.names or zone.owners}
        for zone in self._zones.values():
            zone.prefixes, zone.forwards = (), False
        for record in networks:
            zone = self._zones.setdefault(record.id, NetworkZone())
            zone.name = record.name.lower().encode()
            zone.prefixes = tuple(ipaddress.ip_network(text) for text in record.prefixes)
            zone.forwards = not record.internal
            self._listeners.update(dict.fromkeys(record.gateways, zone))

    def put(self, record: NameRecord) -> None:
        """Take an endpoint in, or over."""
        self.drop(record.id)
        zone = self._zones.setdefault(record.network, NetworkZone())
        addresses = [ipaddress.ip_address(text) for text in record.addresses]
        entry = Entry(
            container=record.container,
            v4=tuple(a.packed for a in addresses if a.version == 4),
            v6=tuple(a.packed for a in addresses if a.version == 6),
            ports=frozenset(record.ports),
            target=next((wire for name in record.names if (wire := encode_name(name))), None),
        )
        self._records[record.id] = record
        for name in record.names:
            zone.names.setdefault(name.lower().encode(), {})[record.id] = entry
        for packed in entry.v4 + entry.v6:
            zone.owners.setdefault(packed, {})[record.id] = entry
        if record.here:
            self._networks_of.setdefault(record.container, {})[record.id] = record.network
            self._clients.update({(record.network, str(address)): record.container for address in addresses})

    def drop(self, identity: str) -> None:
        """Forget an endpoint; one that is not known is no error."""
        self._views.clear()
        record = self._records.pop(identity, None)
        if record is None:
            return
        zone = self._zones[record.network]
        for name in record.names:
            _remove(zone.names, name.lower().encode(), identity)
        for text in record.addresses:
            _remove(zone.owners, ipaddress.ip_address(text).packed, identity)
            self._clients.pop((record.network, text), None)
        networks = self._networks_of.get(record.container, {})
        networks.pop(identity, None)
        if not networks:
            self._networks_of.pop(record.container, None)

    def view(self, listener: str, source: str) -> View | None:
        """Return what a client at ``source`` that asks on the gateway address ``listener`` may know.

        A container of this host knows all networks it is in, everybody else in the network (the host itself has the
        gateway's address) that network. None: the packet is from elsewhere and gets no answer.
        """
        key = (listener, source)
        if key not in self._views:
            if len(self._views) > _VIEWS_KEPT:
                self._views.clear()
            self._views[key] = self._make_view(listener, source)
        return self._views[key]

    def _make_view(self, listener: str, source: str) -> View | None:
        arrived = self._listeners.get(listener)
        if arrived is None or not arrived.holds(ipaddress.ip_address(source.partition("%")[0])):
            return None
        zones = [arrived]
        for network_id, zone in self._zones.items():
            if zone is arrived and (container := self._clients.get((network_id, source))):
                others = dict.fromkeys(self._networks_of.get(container, {}).values())
                zones += [self._zones[other] for other in others if self._zones[other] is not arrived]
        return View(zones=tuple(zones), forwards=any(zone.forwards for zone in zones))


_VIEWS_KEPT = 10_000


def _remove(index: dict[bytes, dict[str, Entry]], key: bytes, identity: str) -> None:
    entries = index.get(key)
    if entries is not None:
        entries.pop(identity, None)
        if not entries:
            del index[key]
