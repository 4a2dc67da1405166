"""What the stores say, as model values: decoded once per change, checked, and joined into a snapshot.

Records are other people's input. One that cannot be used is set aside under its key with the reason and everything
else goes on; a block or address outside its network's subnets is refused the same way, so that no record makes this
host route or claim something that no network declares.

Absence is not deletion: a network that has endpoints here, and this host's claims in it, stay when their records are
gone, or cannot be used any more, without having said ``deleting`` first or ``gone`` afterwards. A wiped or restored
store tears nothing down.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from netagent.errors import NetagentError
from netagent.model.block import Block, BlockState, FixedAddress
from netagent.model.claims import Claims
from netagent.model.endpoint import Endpoint
from netagent.model.endpoint_index import Endpoints
from netagent.model.host import Host
from netagent.model.host_index import Hosts
from netagent.model.ids import HostId, NetworkId
from netagent.model.network import GoneNetwork, Network, NetworkState, Scope
from netagent.model.persistent_map import PersistentSet
from netagent.model.snapshot import Snapshot
from netagent.reconcile.ports import StoreEntry
from netagent.store import keys
from netagent.store.endpoint_records import decode_endpoint
from netagent.store.host_records import decode_gone
from netagent.store.network_records import decode_network
from netagent.store.record_format import InvalidRecord
from netagent.store.records import decode_block, decode_fixed, decode_host
from netagent.store.view_index import ViewIndex

log = logging.getLogger("netagent.store")

_INDEXED = (keys.HOSTS, keys.LIVE, keys.BLOCKS, keys.ADDRESSES)


class ClusterView:
    """The decoded content of one store, as host ``own_host`` uses it.

    ``endpoints`` returns this host's own, as the journal has them. ``refused`` maps the keys that cannot be used to the
    reason, ``misplaced`` those that lie where their network has nothing; ``orphaned`` are those whose last good value
    was kept although the store does not have it any more.
    """

    def __init__(self, own_host: HostId, endpoints: Callable[[], Endpoints]) -> None:
        self._own_host = own_host
        self._own_endpoints = keys.own_endpoints_prefix(own_host)
        self._endpoints = endpoints
        self._groups: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, str] = {}
        self.seized: dict[str, HostId] = {}
        """Claims in use here that another host overwrote, without an operator who took them first -> that host."""
        self.orphaned: set[str] = set()
        self._sources: dict[str, tuple[bytes, Any]] = {}
        """The records that could be used, and those that are kept, each with its value."""
        self._forgone: frozenset[NetworkId] = frozenset()
        self.published: set[str] = set()
        """The keys of this host's endpoints in the store."""
        self._index = ViewIndex()
        self._networks: Mapping[NetworkId, Network] | None = None

    def update(self, changed: Collection[str], entries: Mapping[str, StoreEntry]) -> None:
        """Take over the ``changed`` keys from ``entries``, the store's content after the change."""
        # What is gone for good, networks, what lies in them, hosts: what must be kept of a wiped store follows in
        # this order.
        for key in sorted(changed, key=_importance):
            group = self._groups.setdefault(_prefix_of(key), {})
            previous = group.pop(key, None)
            self.refused.pop(key, None)
            self.orphaned.discard(key)
            entry = entries.get(key)
            if key.startswith(self._own_endpoints):
                self.published.discard(key)
                self.published.update(() if entry is None else (key,))
            value, reason = None, "it is gone from the store"
            if entry is not None:
                try:
                    value = self._decoded(key, entry.value)
                    _refuse_foreign_number(value, entries)
                    self._sources[key] = entry.value, value
                except NetagentError as error:
                    value, self.refused[key] = None, error.message
                    reason = error.message
            self._note_seizure(key, previous, value)
            if value is not None:
                group[key] = value
            elif self._is_needed(previous):
                log.error("record %s stays as it was, because it is in use here: %s", key, reason)
                group[key] = previous
                self.orphaned.add(key)
            else:
                self._sources.pop(key, None)
                if key in self.refused:
                    log.warning("record %s is left out: %s", key, reason)
            if key.startswith(keys.NETWORKS):
                self._networks = None
        self._take_up(changed)

    def _take_up(self, changed: Iterable[str]) -> None:
        """Have the index follow the records under the ``changed`` keys; where claims may lie is a network's to say."""
        followed = set(changed)
        if any(key.startswith(keys.NETWORKS) for key in followed):
            followed.update(self._all(keys.BLOCKS), self._all(keys.ADDRESSES))
        values = {key: self._all(_prefix_of(key)).get(key) for key in followed if key.startswith(_INDEXED)}
        self._index.take(values, self.networks)

    def _note_seizure(self, key: str, previous: Any, value: Any) -> None:
        """Remember a claim of ours that is another host's now, though no operator raised the epoch in between."""
        match previous, value:
            case (Block() | FixedAddress(), Block() | FixedAddress()) if previous.owner == self._own_host:
                if value.owner != self._own_host and value.epoch <= previous.epoch and self._is_needed(previous):
                    self.seized[key] = value.owner
                    log.error("claim %s of this host was overwritten by host %s", key, value.owner)
            case _, None:
                self.seized.pop(key, None)
            case _, Block() | FixedAddress() if value.owner == self._own_host:
                self.seized.pop(key, None)

    def adopt(self, records: Mapping[str, bytes], scope: Scope) -> None:
        """Take over what the journal kept of networks of ``scope`` where the store has nothing usable.

        What is needed of it is orphaned. Records of other networks are another store's.
        """
        adopted: list[str] = []
        for key in sorted(records, key=_importance):
            group = self._groups.setdefault(_prefix_of(key), {})
            if key in group:
                continue
            try:
                value = self._decode(key, records[key])
            except NetagentError as error:
                log.warning("record %s of the journal is left out: %s", key, error)
                continue
            if self._is_needed(value) and (not isinstance(value, Network) or value.scope is scope):
                log.error("record %s is gone from the store, but in use here: it is kept", key)
                group[key] = value
                self._sources[key] = records[key], value
                self.orphaned.add(key)
                adopted.append(key)
                if isinstance(value, Network):
                    self._networks = None
        self._take_up(adopted)

    @property
    def orphans(self) -> dict[str, bytes]:
        """The last good records of the keys that are ``orphaned``."""
        return {key: self._sources[key][0] for key in sorted(self.orphaned, key=_importance)}

    def forgo(self, networks: frozenset[NetworkId]) -> None:
        """Keep nothing of ``networks`` once their records are gone: another store has them."""
        self._forgone |= networks

    def _is_needed(self, value: Any) -> bool:
        """Tell whether a value that lost its record must be kept for the sake of endpoints of this host."""
        match value:
            case Block() | FixedAddress() if value.network_id in self._forgone:
                return False
            case Network(state=NetworkState.ACTIVE):
                return self._in_use(value.id) and value.id not in self.gone
            case FixedAddress() if value.owner == self._own_host:
                holder = self._endpoints().get(value.endpoint_id)
                return holder is not None and any(given.address == value.address for given in holder.addresses)
            case Block(state=BlockState.DRAINING, network_id=network_id, prefix=prefix) if (
                value.owner == self._own_host and not self._endpoints().inhabit(network_id, prefix)
            ):
                return False  # Given back.
            case Block() | FixedAddress():
                network = self.networks.get(value.network_id)
                if network is None or network.state is not NetworkState.ACTIVE or not self._in_use(network.id):
                    return False
                if isinstance(value, Block) and network.subnet_around(value.prefix) is None:
                    return False  # Its subnet was taken from the network.
                return value.owner == self._own_host or keys.network_key(network.name) in self.orphaned
            case Host():
                blocks = self._all(keys.BLOCKS)
                return any(blocks[key].owner == value.id for key in self.orphaned if key in blocks)
            case _:
                return False

    def _in_use(self, network_id: NetworkId) -> bool:
        return network_id not in self._forgone and network_id in self._endpoints().networks

    def drop_orphans(self) -> bool:
        """Let go of what was kept and is not needed any more; tell whether there was anything."""
        dropped: list[str] = []
        for key in sorted(self.orphaned, key=_importance):
            group = self._groups[_prefix_of(key)]
            if not self._is_needed(group[key]):
                self.orphaned.discard(key)
                del group[key], self._sources[key]
                dropped.append(key)
                if key.startswith(keys.NETWORKS):
                    self._networks = None
        self._take_up(dropped)
        return bool(dropped)

    def _decoded(self, key: str, value: bytes) -> Any:
        """Return what ``_decode`` does, the same object as long as the record says the same."""
        known = self._sources.get(key)
        if known is not None and known[0] == value:
            return known[1]
        return self._decode(key, value)

    def _decode(self, key: str, value: bytes) -> Any:
        """Return the value of a key that this host has a use for, else None."""
        if key.startswith(keys.NETWORKS):
            network = decode_network(value)
            return _expect(network, key, keys.network_key(network.name))
        if key.startswith(keys.HOSTS):
            host = decode_host(value)
            return _expect(host, key, keys.host_key(host.id))
        if key.startswith(keys.GONE):
            gone = decode_gone(value)
            return _expect(gone, key, keys.gone_key(gone.id))
        if key.startswith(keys.LIVE):
            return HostId(key.removeprefix(keys.LIVE))
        if key.startswith(keys.BLOCKS):
            block = decode_block(value)
            return _expect(block, key, keys.block_key(block.network_id, block.prefix))
        if key.startswith(keys.ADDRESSES):
            return decode_fixed(value)
        if key.startswith(keys.ENDPOINTS) and not key.startswith(self._own_endpoints):
            return decode_endpoint(value)
        return None

    def _all(self, prefix: str) -> dict[str, Any]:
        return self._groups.get(prefix, {})

    @property
    def misplaced(self) -> dict[str, str]:
        """The blocks and claims that are left out because of where they lie, and why, by key."""
        return {
            key: f"network {network.name} has no {kind} there"
            for prefix, kind in ((keys.BLOCKS, "block"), (keys.ADDRESSES, "fixed address"))
            for key, value in self._all(prefix).items()
            if key not in self._index and (network := self.networks.get(value.network_id)) is not None
        }

    @property
    def networks(self) -> Mapping[NetworkId, Network]:
        """All networks by id."""
        if self._networks is None:
            self._networks = {network.id: network for network in self._all(keys.NETWORKS).values()}
        return self._networks

    @property
    def gone(self) -> dict[NetworkId, GoneNetwork]:
        """The networks that were removed while hosts that held blocks of them were away, by id."""
        return {g.id: g for g in self._all(keys.GONE).values()}

    def has_network(self, key: str, network_id: NetworkId) -> bool:
        """Tell whether the network under ``key`` is the one with this id."""
        found = self._all(keys.NETWORKS).get(key)
        return found is not None and found.id == network_id

    @property
    def hosts(self) -> Hosts:
        """All hosts, dead ones too."""
        return self._index.hosts

    @property
    def live(self) -> PersistentSet[HostId]:
        """The hosts whose agents keep their lease."""
        return self._index.live

    @property
    def remote_endpoints(self) -> dict[HostId, list[Endpoint]]:
        """The other hosts' endpoints, as they published them."""
        found: dict[HostId, list[Endpoint]] = {}
        for key, endpoint in self.endpoints.items():
            found.setdefault(keys.host_of_endpoint(key), []).append(endpoint)
        return found

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """The other hosts' endpoints by key."""
        return self._all(keys.ENDPOINTS)

    @property
    def claims(self) -> Claims:
        """All claims that lie where their network says: in its subnets, and under their block's key."""
        return self._index.claims

    @property
    def fixed_records(self) -> Mapping[str, FixedAddress]:
        """All fixed-address claims by key, wherever they lie."""
        return self._all(keys.ADDRESSES)


def _prefix_of(key: str) -> str:
    """Return the part of a key that says what kind of record it holds."""
    return key[: key.find("/", len(keys.ROOT)) + 1]


def _importance(key: str) -> int:
    order = (keys.GONE, keys.NETWORKS, keys.BLOCKS, keys.ADDRESSES)
    return order.index(_prefix_of(key)) if _prefix_of(key) in order else len(order)


def _refuse_foreign_number(value: Any, entries: Mapping[str, StoreEntry]) -> None:
    """Raise InvalidRecord for a network whose number belongs to another one: both would be one in the tunnel."""
    if isinstance(value, Network) and value.vni is not None:
        owner = entries.get(keys.number_key(value.vni))
        if owner is not None and owner.value != value.id.encode():
            raise InvalidRecord(f"number {value.vni} belongs to another network")


def _expect(value: Any, key: str, expected: str) -> Any:
    if key != expected:
        raise InvalidRecord(f"record belongs under {expected}")
    return value


def join_snapshot(views: Iterable[ClusterView], host: Host, *, complete: bool) -> Snapshot:
    """Return the snapshot of what all ``views`` say, as ``host`` sees it, still without its endpoints."""
    networks: dict[NetworkId, Network] = {}
    hosts, claims = Hosts(), Claims()
    live: PersistentSet[HostId] = PersistentSet()
    for view in views:
        networks.update(view.networks)
        hosts, claims = hosts.joined(view.hosts), claims.joined(view.claims)
        live = live.joined(view.live)
    return Snapshot(
        host=host, networks=MappingProxyType(networks), hosts=hosts, live=live, claims=claims, complete=complete
    )
