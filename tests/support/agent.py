"""A whole agent in one process, without root: the real services, journal and stores over a fake kernel and runtime.

Several agents may share one ``MemoryStore``, and so be the hosts of one cluster. Nothing here waits for time: what is
ready runs in ``settled``, and an agent is idle after it.
"""

import asyncio
import errno
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from netagent.daemon.wiring import _look_back, _react
from netagent.errors import KernelRejected
from netagent.ipam.pools import parse_bip
from netagent.kernel.fake import AUTOMATIC_PORTS, FakeKernel, FakeReservations
from netagent.model.endpoint import Endpoint
from netagent.model.host import Host, HostFacts
from netagent.model.network import Network
from netagent.model.port import PortMapping
from netagent.plan.operation import Operation
from netagent.reconcile.engine import Engine
from netagent.runtime.runc import Runtime
from netagent.services.attachments import AttachmentService
from netagent.services.blocks import BlockService
from netagent.services.connections import ConnectionService
from netagent.services.containers import ContainerService
from netagent.services.context import Context, Knowledge, NoNames
from netagent.services.endpoints import EndpointService
from netagent.services.events import EventBus
from netagent.services.hosts import HostService
from netagent.services.info import InfoService
from netagent.services.limits import LimitService
from netagent.services.membership import MembershipService
from netagent.services.network_removal import NetworkRemovalService
from netagent.services.networks import NetworkService
from netagent.services.ports import PortService
from netagent.services.predefined import create_predefined
from netagent.services.presence import Presence
from netagent.services.publisher import Publisher
from netagent.services.publishing import PublishingService
from netagent.services.requests import Attachment, Connection, NewNetwork
from netagent.services.returning import ReturningService
from netagent.services.stats import StatsService
from netagent.services.stores import StoreAccess, Stores
from netagent.services.tasks import Tasks
from netagent.store import keys
from netagent.store.journal import Journal
from netagent.store.memory import MemoryStore
from netagent.store.mirror import IdentifiedStore, Mirror
from netagent.store.sqlite import SqliteStore
from netagent.store.view import ClusterView
from tests.support.oci import FakeRuntime
from tests.support.world import a_host

EPHEMERAL = (AUTOMATIC_PORTS.first, AUTOMATIC_PORTS.last)
TIME = "2026-07-01T12:00:00.000000Z"
ROUNDS = 200
"""Turns of the event loop in which everything that is ready has run: the longest chain of tasks here takes some 30."""

IDLE_ROUNDS = 20
"""Turns in a row that nothing else was ready in, after which nothing will be."""

ATTACH_STEPS = ("nft add element hairpin4", "nft add element publish4", "link add nae", "address add", "route replace")
"""How the operations begin by which a container with a published port comes into the kernel."""

_numbers = itertools.count(1)


async def settled() -> None:
    """Let everything run that is not waiting for a clock."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    idle = 0
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
        idle = 0 if ready else idle + 1
        if idle == IDLE_ROUNDS:
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All that an attach may change, to compare before and after."""

    endpoints: Mapping[str, object]
    containers: Mapping[str, object]
    kernel: tuple[object, ...]
    ports: frozenset[PortMapping]
    records: Mapping[str, bytes]


def kernel_tables(kernel: FakeKernel) -> tuple[object, ...]:
    """Return the content of a fake kernel, to compare with another moment's."""
    return (
        dict(kernel.links),
        frozenset(kernel.addresses),
        dict(kernel.routes),
        dict(kernel.neighbours),
        dict(kernel.fdb),
        frozenset(kernel.tunnel_sources),
        dict(kernel.shapers),
        dict(kernel.redirects),
        dict(kernel.sysctls),
        kernel.ruleset,
    )


class RefusingKernel(FakeKernel):
    """A kernel that refuses whatever operation's text begins with ``refused``, as long as it is set."""

    refused = ""

    def _carry_out(self, operation: Operation) -> None:
        if self.refused and str(operation).startswith(self.refused):
            raise KernelRejected(str(operation), errno.ENOBUFS, "no buffer space")
        super()._carry_out(operation)


class Agent:
    """One host's agent. An Agent with the same directory is its next life."""

    def __init__(
        self,
        directory: Path,
        *,
        host: Host | None = None,
        cluster: MemoryStore | None = None,
        kernel: RefusingKernel | None = None,
        runtime: FakeRuntime | None = None,
        reservations: FakeReservations | None = None,
        facts: HostFacts | None = None,
        bip: str = "",
        boot: str = "boot",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.host = host or a_host(1)
        self.kernel = kernel or (RefusingKernel(facts) if facts else RefusingKernel())
        self.runtime = runtime or FakeRuntime(directory)
        self.reservations = reservations or FakeReservations()
        self.journal = Journal(directory)
        local = self._access(SqliteStore(directory / "store.db"), None)
        shared = self._access(cluster, directory / "cluster.snapshot") if cluster is not None else local
        self.stores = Stores(local=local, cluster=shared)
        self.knowledge = Knowledge(self.host, self.stores, self.journal)
        self.engine = Engine(self.kernel, self.knowledge.snapshot)
        self.events = EventBus(lambda: TIME)
        self.presence = Presence(
            self.knowledge, self.stores, self.events, boot=boot, life=f"{self.host.id}-{next(_numbers)}"
        )
        self.publisher = Publisher(self.knowledge, self.stores, self.journal, self.engine, self.presence)
        self._directory = directory
        self.context = Context(
            knowledge=self.knowledge,
            stores=self.stores,
            journal=self.journal,
            kernel=self.kernel,
            engine=self.engine,
            events=self.events,
            now=lambda: TIME,
            new_id=lambda: f"{self.host.id[-1]}{next(_numbers):011d}".ljust(64, "0"),
            publish_records=self.publisher.request,
            names=NoNames(),
            default_subnet=parse_bip(bip) if bip else None,
        )
        for access in self.stores.all:
            access.subscribe(_react(self.knowledge, self.engine, self.publisher, self.host.id))
        self.ports = PortService(self.journal, self.reservations)
        self.blocks = BlockService(self.context)
        self.endpoints = EndpointService(self.context, self.blocks, self.ports)
        self.networks = NetworkService(self.context)
        self.network_removal = NetworkRemovalService(self.context, self.networks)
        self.attachments = AttachmentService(self.context, self.networks, self.endpoints)
        self.hosts = HostService(self.context)
        self.info = InfoService(
            self.context, MembershipService(self.context, None), store="memory", run_dir=str(directory)
        )
        self._stopping = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    def _access(self, store: IdentifiedStore, saved: Path | None) -> StoreAccess:
        mirror = Mirror(store, keys.ROOT, snapshot_path=saved)
        return StoreAccess(store, mirror, ClusterView(self.host.id, lambda: self.journal.endpoints))

    async def start(self, *, recover: bool = True) -> None:
        """Do what ``daemon/main.py`` does at the start, up to the doors."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._life = asyncio.ensure_future(self._live(ready, recover=recover))
        await asyncio.wait({ready, self._life}, return_when=asyncio.FIRST_COMPLETED)
        if self._life.done():
            life, self._life = self._life, None
            self.journal.close()
            try:
                await life
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from group

    async def _live(self, ready: asyncio.Future[None], *, recover: bool) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            try:
                self.containers = ContainerService(
                    self.context,
                    self.networks,
                    self.endpoints,
                    cast("Runtime", self.runtime),
                    sandboxes=self._directory / "netns",
                    tasks=tasks,
                )
                self.connections = ConnectionService(
                    self.context, self.networks, self.endpoints, self.containers, self.attachments
                )
                self.publishing = PublishingService(
                    self.context, self.endpoints, self.ports, self.containers, self.attachments
                )
                self.stats = StatsService(self.context, self.networks, self.containers)
                self.limits = LimitService(self.context, self.endpoints, self.containers, self.attachments)
                self.returning = ReturningService(
                    self.context, self.endpoints, self.containers, self.attachments, self.blocks
                )
                for access in self.stores.all:
                    access.subscribe(_look_back(self.returning))
                    tasks.spawn(access.mirror.run(), name="mirror")
                await self._hear_stores()
                await self.presence.establish()
                await create_predefined(self.context)
                if recover:
                    await self.attachments.recover()
                    await self.containers.recover()
                self.ports.restore()
                await self.engine.reconcile()
                tasks.spawn(self.engine.run(), name="engine")
                tasks.spawn(self.publisher.run(), name="publisher")
                tasks.spawn(self.presence.run(), name="presence", essential=True)
                tasks.spawn(self.returning.run(), name="returning")
                self.publisher.request()
                self.returning.request()
                await settled()
                ready.set_result(None)
                await self._stopping.wait()
            finally:
                tasks.cancel()

    async def _hear_stores(self) -> None:
        for access in self.stores.all:
            if access.store.is_connected:
                await access.mirror.wait_until(partial(getattr, access.mirror, "is_synced"), within=30)
            access.view.update(access.mirror.entries, access.mirror.entries)
        self.stores.adopt(self.journal.adopted)
        self.knowledge.invalidate()

    async def stop(self) -> None:
        """End the process: files are closed, what is in the kernel stays. Repeatable."""
        if self._life is None:
            return
        self._stopping.set()
        life, self._life = self._life, None
        await life
        await self.stores.local.store.close()
        self.journal.close()

    async def create_network(self, name: str = "staticnet", **wishes: object) -> Network:
        """Create a network; an overlay of 192.168.0.0/16 if nothing else is wished."""
        wishes = {"driver": "vxlan", "subnets": ("192.168.0.0/16",), **wishes}
        network = await self.networks.create(NewNetwork(name=name, **wishes))  # type: ignore[arg-type]
        await settled()
        return network

    async def attach(
        self, name: str = "web", *networks: str, ip: str = "", publish: tuple[str, ...] = (), **more: object
    ) -> Endpoint:
        """Attach a namespace of its own to ``networks`` under ``name``; return its first endpoint."""
        netns = f"/run/netns/{name}"
        if netns not in self.kernel.sandboxes:
            await self.kernel.create_sandbox(netns)
        connection = Connection(networks=networks, addresses=(ip,) if ip else (), publish=publish)
        request = Attachment(name=name, netns=netns, connection=connection, **more)  # type: ignore[arg-type]
        view = await self.attachments.attach(request)
        return view.endpoints[0][0]

    def records(self, prefix: str = keys.ROOT) -> dict[str, bytes]:
        """Return what the cluster's store holds, as this host's mirror has it."""
        return {key: entry.value for key, entry in self.stores.cluster.mirror.entries.items() if key.startswith(prefix)}

    def picture(self) -> Picture:
        """Return everything that an attach of this host may change, which is not whether an agent lives."""
        return Picture(
            endpoints=dict(self.journal.endpoints),
            containers=dict(self.journal.containers),
            kernel=kernel_tables(self.kernel),
            ports=frozenset(self.reservations.held),
            records={key: value for key, value in self.records().items() if not key.startswith(keys.LIVE)},
        )
