"""Which names exist in which network, and who may ask for them: an index over what the agent has told."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from netagent.dns.control import NameRecord, NetworkRecord
from netagent.dns.message import encode_name
from netagent.model.address import Address, Prefix

_VIEWS_KEPT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One endpoint as answers need it; addresses are packed. ``target`` is its first name in wire form."""

    container: str
    v4: tuple[bytes, ...]
    v6: tuple[bytes, ...]
    ports: frozenset[tuple[int, str]]
    target: bytes | None


@dataclass(slots=True, kw_only=True, eq=False)
class NetworkZone:
    """The names of one network. Several endpoints may share one; ``*.app`` stands for everything below ``app``."""

    name: bytes = b""
    prefixes: tuple[Prefix, ...] = ()
    forwards: bool = False
    names: dict[bytes, dict[str, Entry]] = field(default_factory=dict)
    titles: dict[bytes, dict[str, Entry]] = field(default_factory=dict)
    """By the container's name, also where nothing has a name."""
    owners: dict[bytes, dict[str, Entry]] = field(default_factory=dict)
    """By packed address."""

    def find(self, name: bytes) -> tuple[Entry, ...]:
        """Return the entries that ``name`` (lower case) stands for: exactly, with the network's name, by wildcard."""
        found = self.names.get(name)
        if found is None and b"." in name:
            found = self._find_longer(name)
        return tuple(found.values()) if found else ()

    def _find_longer(self, name: bytes) -> dict[str, Entry] | None:
        if self.name and name.endswith(b"." + self.name):
            found = self.names.get(name[: -len(self.name) - 1])
            if found is not None:
                return found
        rest = name
        while b"." in rest:
            rest = rest.partition(b".")[2]
            found = self.names.get(b"*." + rest)
            if found is not None:
                return found
        return None

    def holds(self, address: Address) -> bool:
        """Tell whether ``address`` lies in the network."""
        return any(address.version == prefix.version and address in prefix for prefix in self.prefixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one client may know: its networks, the one it asks on first, and its ``links``, alias to title.

    ``forwards``: other names go upstream, to ``servers`` if there are any, but none below ``private`` subnets.
    ``is_host``: it may be the host itself that asks.
    """

    zones: tuple[NetworkZone, ...]
    forwards: bool
    links: Mapping[bytes, bytes] = field(default_factory=lambda: MappingProxyType({}))
    servers: tuple[str, ...] = ()
    private: tuple[Prefix, ...] = ()
    is_host: bool = False

    def find(self, name: bytes) -> tuple[Entry, ...]:
        """Return the entries of ``name`` in the first network that knows it; links come first."""
        title = self.links.get(name)
        if title is not None:
            linked = next((entries for zone in self.zones if (entries := zone.titles.get(title))), None)
            if linked is not None:
                return tuple(linked.values())
        return next((found for zone in self.zones if (found := zone.find(name))), ())

    def owners(self, address: bytes) -> tuple[Entry, ...]:
        """Return whose ``address`` (packed) it is."""
        return next((tuple(found.values()) for zone in self.zones if (found := zone.owners.get(address))), ())

    def is_private(self, prefix: Prefix) -> bool:
        """Tell whether all of ``prefix`` lies in a subnet of ours, about which nobody else can know anything."""
        return any(
            prefix.version == own.version
            and prefix.prefixlen >= own.prefixlen
            and int(prefix.network_address) & int(own.netmask) == int(own.network_address)
            for own in self.private
        )


class Zones:
    """All networks of this host."""

    def __init__(self) -> None:
        self._zones: dict[str, NetworkZone] = {}
        self._records: dict[str, NameRecord] = {}
        self._listeners: dict[str, NetworkZone] = {}
        self._own: frozenset[str] = frozenset()
        self._private: tuple[Prefix, ...] = ()
        self._endpoints_of: dict[str, dict[str, NameRecord]] = {}
        self._clients: dict[tuple[str, str], str] = {}
        self._views: dict[tuple[str, str], View | None] = {}

    @property
    def addresses(self) -> frozenset[str]:
        """The addresses to answer on."""
        return self._own.union(self._listeners)

    def set_networks(
        self, networks: Iterable[NetworkRecord], *, private: Iterable[str] = (), own: Iterable[str] = ()
    ) -> None:
        """Take over what networks there are; names of others are kept, but nobody may ask for them.

        ``private`` and ``own`` as in ``control.Sync``.
        """
        self._views.clear()
        self._listeners.clear()
        self._own = frozenset(own)
        self._private = tuple(ipaddress.ip_network(text) for text in private)
        self._zones = {identity: zone for identity, zone in self._zones.items() if zone.titles or zone.owners}
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
            zone.names.setdefault(_key(name), {})[record.id] = entry
        zone.titles.setdefault(_key(record.title), {})[record.id] = entry
        for packed in entry.v4 + entry.v6:
            zone.owners.setdefault(packed, {})[record.id] = entry
        if record.here:
            self._endpoints_of.setdefault(record.container, {})[record.id] = record
            self._clients.update({(record.network, str(address)): record.container for address in addresses})

    def drop(self, identity: str) -> None:
        """Forget an endpoint; one that is not known is no error."""
        self._views.clear()
        record = self._records.pop(identity, None)
        if record is None:
            return
        zone = self._zones[record.network]
        for name in record.names:
            _remove(zone.names, _key(name), identity)
        _remove(zone.titles, _key(record.title), identity)
        for text in record.addresses:
            _remove(zone.owners, ipaddress.ip_address(text).packed, identity)
            self._clients.pop((record.network, text), None)
        endpoints = self._endpoints_of.get(record.container, {})
        endpoints.pop(identity, None)
        if not endpoints:
            self._endpoints_of.pop(record.container, None)

    def view(self, listener: str, source: str) -> View | None:
        """Return what a client at ``source`` that asks at the address ``listener`` may know.

        From internal networks alone nothing is forwarded but to servers that are in them themselves.
        A container of this host knows all networks it is in, everybody else in the network (the host itself has the
        gateway's address) that network, and the host at its own address all. None: the packet is from elsewhere and
        gets no answer.
        """
        key = (listener, source)
        if key not in self._views:
            if len(self._views) >= _VIEWS_KEPT:
                self._views.clear()
            self._views[key] = self._make_view(listener, source)
        return self._views[key]

    def _make_view(self, listener: str, source: str) -> View | None:
        client = ipaddress.ip_address(source.partition("%")[0])
        if listener in self._own:
            here = tuple(dict.fromkeys(self._listeners.values()))
            return View(zones=here, forwards=True, private=self._private, is_host=True) if client.is_loopback else None
        arrived = self._listeners.get(listener)
        if arrived is None or not arrived.holds(client):
            return None
        records = self._records_of_client(arrived, source)
        known = tuple(dict.fromkeys((arrived, *(self._zones[record.network] for record in records))))
        servers = next((record.servers for record in records if record.servers), ())
        if not (leads_out := any(zone.forwards for zone in known)):
            servers = tuple(server for server in servers if _is_in(server, known))
        return View(
            zones=known,
            forwards=leads_out or bool(servers),
            links={_key(alias): _key(title) for record in records for alias, title in record.links},
            servers=servers,
            private=self._private,
            is_host=source in self._listeners,
        )

    def _records_of_client(self, arrived: NetworkZone, source: str) -> tuple[NameRecord, ...]:
        """Return all endpoints of the container of this host that has the address ``source`` in a network."""
        for network_id, zone in self._zones.items():
            if zone is arrived and (container := self._clients.get((network_id, source))):
                return tuple(self._endpoints_of.get(container, {}).values())
        return ()


def _is_in(server: str, zones: Iterable[NetworkZone]) -> bool:
    address = ipaddress.ip_address(server.partition("%")[0])
    return any(zone.holds(address) for zone in zones)


def _key(name: str) -> bytes:
    return name.lower().encode()


def _remove(index: dict[bytes, dict[str, Entry]], key: bytes, identity: str) -> None:
    entries = index.get(key)
    if entries is not None:
        entries.pop(identity, None)
        if not entries:
            del index[key]
