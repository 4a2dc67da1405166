"""What all services work with, put together once by ``daemon/wiring.py``."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from netagent.ipam.contest import find_contested
from netagent.ipam.pools import Pool
from netagent.model.address import Address
from netagent.model.claims import Claims
from netagent.model.host import Host
from netagent.model.ids import EndpointId, HostId, NetworkId
from netagent.model.network import Subnet
from netagent.model.paths import Paths
from netagent.model.snapshot import Snapshot
from netagent.reconcile.engine import Engine
from netagent.reconcile.ports import Kernel
from netagent.services.events import EventBus
from netagent.services.stores import Stores
from netagent.store.journal import Journal
from netagent.store.view import join_snapshot


class Knowledge:
    """Everything this host knows, joined into a snapshot on demand.

    The cluster's part is joined once per change of the store; an attach only exchanges the endpoints. Until anything
    changes the snapshot is one and the same.
    """

    def __init__(self, host: Host, stores: Stores, journal: Journal) -> None:
        self.host = host
        self._stores = stores
        self._journal = journal
        self._joined: Snapshot | None = None
        self._latest: Snapshot | None = None
        self._contested: Mapping[tuple[EndpointId, Address], HostId] = {}
        self._weighed: Claims | None = None
        self.prepared: frozenset[tuple[NetworkId, int]] = frozenset()
        """The moves of networks whose both ways are in this host's kernel."""
        self.made: frozenset[tuple[NetworkId, int]] = frozenset()
        """The moves after which this host's routes to all peers go by the new way, in the kernel."""
        self.path_problems: Mapping[HostId, tuple[str, ...]] = {}
        """What tests of the ways to peers found wrong, as ``network: what``."""
        self.store_error = ""
        """Why the store does not have this host's latest records, empty if it has them."""
        self.host_problems: tuple[str, ...] = ()
        """What is wrong with this host itself."""
        self.paths = Paths()
        """What of it is done something about."""
        self._turned: frozenset[tuple[NetworkId, int, HostId]] = frozenset()

    def invalidate(self) -> None:
        """Forget the joined part, because a store or the host's own record has changed."""
        self._joined = self._latest = None

    def snapshot(self) -> Snapshot:
        """Return the present snapshot."""
        if self._joined is None:
            self._joined = join_snapshot(
                (access.view for access in self._stores.all),
                self.host,
                complete=all(access.mirror.is_complete for access in self._stores.all),
            )
            self._weigh(self._joined)
        endpoints, latest = self._journal.endpoints, self._latest
        is_latest = latest is not None and (latest.turned is self._turned and latest.paths is self.paths)
        if latest is None or not is_latest or latest.endpoints is not endpoints:
            latest = replace(
                self._joined,
                turned=self._turned,
                paths=self.paths,
                contested=self._contested,
                endpoints=endpoints,
                containers=MappingProxyType(dict(self._journal.containers)),
            )
            self._latest = latest
        return latest

    def _weigh(self, joined: Snapshot) -> None:
        """Find contested addresses, if claims changed: what is given later comes from claims that stand then."""
        if self._weighed != joined.claims:
            self._weighed = joined.claims
            self._contested = find_contested(joined.with_endpoints(self._journal.endpoints))

    def turn(self, peers: Iterable[tuple[NetworkId, int, HostId]]) -> None:
        """Remember that these peers are reached by their networks' new ways."""
        self._turned |= frozenset(peers)

    def forget_turned(self, current: Collection[tuple[NetworkId, int]]) -> None:
        """Forget it for all but the moves that are going on."""
        self._turned = frozenset(t for t in self._turned if t[:2] in current)


class Names(Protocol):
    """Who makes endpoints' names answered."""

    def request(self, endpoints: Iterable[EndpointId] = ()) -> None:
        """Ask for the names of these endpoints to be brought up to date soon."""

    async def published(self, endpoints: Iterable[EndpointId] = ()) -> None:
        """Wait until they are, but not long."""


class NoNames:
    """Names for nobody."""

    def request(self, endpoints: Iterable[EndpointId] = ()) -> None:
        """Do nothing."""

    async def published(self, endpoints: Iterable[EndpointId] = ()) -> None:
        """Do not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts that services share. ``publish_records`` asks for this host's records to be brought into the store.

    ``pools`` are where automatic subnets of networks on this host come from, netagent's own if empty.
    ``default_subnet`` is the configured one of the default network.
    """

    knowledge: Knowledge
    stores: Stores
    journal: Journal
    kernel: Kernel
    engine: Engine
    events: EventBus
    now: Callable[[], str]
    new_id: Callable[[], str]
    publish_records: Callable[[], None]
    names: Names
    pools: tuple[Pool, ...] = ()
    default_subnet: Subnet | None = None

    @property
    def host(self) -> Host:
        """This host."""
        return self.knowledge.host

    def snapshot(self) -> Snapshot:
        """Return the present snapshot."""
        return self.knowledge.snapshot()
