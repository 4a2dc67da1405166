"""Builds an agent from its configuration: the one place where concrete stores, kernel and services meet."""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from netagent.coexist.all import FIREWALLS
from netagent.daemon.config import Config, DockerOptions
from netagent.daemon.identity import boot_id, describe_host, load_host_id
from netagent.dns.client import NameServer
from netagent.errors import EnvironmentProblem
from netagent.ipam.pools import parse_bip, parse_pool
from netagent.kernel.kernel import Kernel
from netagent.kernel.reserve import SocketReservations
from netagent.loopback.client import LoopbackForwarder
from netagent.model.ids import HostId
from netagent.reconcile.engine import Engine
from netagent.runtime.dockerd import Dockerd
from netagent.runtime.runc import Runtime
from netagent.services.all import Services
from netagent.services.attachments import AttachmentService
from netagent.services.blocks import BlockService
from netagent.services.coexistence import Coexistence
from netagent.services.collection import CollectionService
from netagent.services.connections import ConnectionService
from netagent.services.containers import ContainerService
from netagent.services.context import Context, Knowledge
from netagent.services.copying import CopyService
from netagent.services.docker_endpoints import DockerEndpoints
from netagent.services.docker_networks import DockerNetworks
from netagent.services.endpoints import EndpointService
from netagent.services.events import EventBus
from netagent.services.exposure import ExposureService
from netagent.services.host_blocks import HostBlockService
from netagent.services.hosts import HostService
from netagent.services.info import InfoService
from netagent.services.limits import LimitService
from netagent.services.loopback import LoopbackService
from netagent.services.membership import MembershipService
from netagent.services.moving import MovingService
from netagent.services.naming import NamingService
from netagent.services.network_options import parse_host_bindings
from netagent.services.network_removal import NetworkRemovalService
from netagent.services.networks import NetworkService
from netagent.services.ports import PortService
from netagent.services.presence import Presence
from netagent.services.probing import ProbingService
from netagent.services.publisher import Publisher
from netagent.services.publishing import PublishingService
from netagent.services.readiness import ReadinessService
from netagent.services.rebuilding import RebuildingService
from netagent.services.resolving import ResolvingService
from netagent.services.returning import ReturningService
from netagent.services.seizures import Seizures
from netagent.services.stats import StatsService
from netagent.services.stores import StoreAccess, Stores
from netagent.services.tasks import Tasks
from netagent.services.tracking import TrackingService
from netagent.services.uplinks import UplinkService
from netagent.services.verification import VerificationService
from netagent.store import keys
from netagent.store.etcd.access import parse_access
from netagent.store.etcd.store import EtcdStore
from netagent.store.journal import Journal
from netagent.store.mirror import Mirror
from netagent.store.pin import ClusterPin
from netagent.store.sqlite import SqliteStore
from netagent.store.view import ClusterView

log = logging.getLogger("netagent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The parts of a running agent that ``daemon/main.py`` starts and stops."""

    config: Config
    context: Context
    kernel: Kernel
    publisher: Publisher
    presence: Presence
    returning: ReturningService
    uplinks: UplinkService
    moving: MovingService
    probing: ProbingService
    tracking: TrackingService
    naming: NamingService
    ports: PortService
    loopback: LoopbackService | None
    services: Services
    dockerd: Dockerd
    docker_networks: DockerNetworks
    docker_endpoints: DockerEndpoints
    coexistence: Coexistence


async def build(config: Config, journal: Journal, tasks: Tasks) -> Agent:
    """Return an agent, all of it made and nothing of it started."""
    state_dir, run_dir = Path(config.state_dir), Path(config.run_dir)
    kernel = Kernel(iptables=config.iptables_command if config.firewall == "iptables" else None)
    host = describe_host(load_host_id(state_dir), config, await kernel.facts())
    events = EventBus(_now)
    pin = _pin(state_dir, events) if config.store else None
    stores = _open_stores(config, state_dir, host.id, journal, pin)
    knowledge = Knowledge(host, stores, journal)
    engine = Engine(kernel, knowledge.snapshot)
    presence = Presence(
        knowledge, stores, events, boot=boot_id(), life=secrets.token_hex(16), state_dir=config.state_dir
    )
    publisher = Publisher(knowledge, stores, journal, engine, presence)
    name_server = NameServer(run_dir / "dns.sock")
    naming = NamingService(
        knowledge,
        stores,
        journal,
        name_server,
        own_addresses=(config.dns_address,) if config.dns_address else (),
    )
    reservations = SocketReservations()
    loopback = LoopbackService(journal, reservations, LoopbackForwarder()) if config.loopback_proxy else None
    context = Context(
        knowledge=knowledge,
        stores=stores,
        journal=journal,
        kernel=kernel,
        engine=engine,
        events=events,
        now=_now,
        new_id=lambda: secrets.token_hex(32),
        publish_records=_all_of(publisher.request, *([loopback.request] if loopback else [])),
        names=naming,
        default_subnet=parse_bip(config.bip) if config.bip else None,
        pools=tuple(parse_pool(pool.base, pool.size) for pool in config.default_address_pools),
    )
    moving = MovingService(context)
    probing = ProbingService(context)
    for access in stores.all:
        access.subscribe(_react(knowledge, engine, publisher, host.id))
        access.subscribe(naming.request_stored)
        access.subscribe(moving.store_changed)
        access.subscribe(probing.store_changed)
    ports = PortService(
        journal,
        reservations,
        bindings=parse_host_bindings(config.host_binding_ipv4, config.host_binding_ipv6),
        let_go=loopback.let_go if loopback else None,
    )
    blocks = BlockService(context)
    endpoints = EndpointService(context, blocks, ports)
    networks = NetworkService(context)
    dockerd = Dockerd((config.docker_options or DockerOptions()).socket)
    network_removal = NetworkRemovalService(context, networks)
    docker_networks = DockerNetworks(context, networks, network_removal, dockerd)
    docker_endpoints = DockerEndpoints(context, docker_networks, endpoints, blocks, ports)
    containers = ContainerService(
        context, networks, endpoints, Runtime(run_dir), sandboxes=run_dir / "netns", tasks=tasks
    )
    attachments = AttachmentService(context, networks, endpoints)
    services = Services(
        networks=networks,
        network_removal=network_removal,
        containers=containers,
        attachments=attachments,
        connections=ConnectionService(context, networks, endpoints, containers, attachments),
        publishing=PublishingService(context, endpoints, ports, containers, attachments),
        limits=LimitService(context, endpoints, containers, attachments),
        stats=StatsService(context, networks, containers),
        hosts=(hosts := HostService(context)),
        host_blocks=HostBlockService(context, hosts, networks),
        events=events,
        membership=(membership := MembershipService(context, pin)),
        info=InfoService(context, membership, store=config.store or "embedded", run_dir=str(run_dir)),
        rebuilding=RebuildingService(context),
        copying=CopyService(context),
        exposure=(exposure := ExposureService(context)),
        verification=VerificationService(context),
        collection=CollectionService(context, attachments, grace_s=config.cni.grace_s),
        readiness=ReadinessService(context),
        resolving=ResolvingService(context, name_server, containers.find, own_address=config.dns_address),
    )
    coexistence = Coexistence(context, exposure, FIREWALLS, config.coexist_with)
    returning = ReturningService(context, endpoints, containers, attachments, blocks)
    seizures = Seizures(context)
    for access in stores.all:
        access.subscribe(_reconsider(coexistence))
        access.subscribe(seizures.store_changed)
        access.subscribe(_look_back(returning))
    return Agent(
        config=config,
        context=context,
        kernel=kernel,
        publisher=publisher,
        presence=presence,
        returning=returning,
        uplinks=UplinkService(context, partial(describe_host, host.id, config)),
        moving=moving,
        probing=probing,
        tracking=TrackingService(context),
        naming=naming,
        ports=ports,
        loopback=loopback,
        services=services,
        dockerd=dockerd,
        docker_networks=docker_networks,
        docker_endpoints=docker_endpoints,
        coexistence=coexistence,
    )


def _all_of(*requests: Callable[[], None]) -> Callable[[], None]:
    def request() -> None:
        for each in requests:
            each()

    return request


def _pin(state_dir: Path, events: EventBus) -> ClusterPin:
    """Return what keeps this host to its cluster and tells of another one."""

    def refused(found: str, expected: str) -> None:
        log.error("another cluster's store answers: %s, and this host belongs to %s", found, expected)
        events.publish("store", "refuse", found, expected=expected)

    return ClusterPin(state_dir / "cluster-id", on_refused=refused)


def _open_stores(config: Config, state_dir: Path, host_id: HostId, journal: Journal, pin: ClusterPin | None) -> Stores:
    embedded = SqliteStore(state_dir / "store.db")
    local = StoreAccess(embedded, Mirror(embedded, keys.ROOT), ClusterView(host_id, lambda: journal.endpoints))
    if not config.store:
        return Stores(local=local, cluster=local)
    options = config.etcd
    access = parse_access(
        config.store,
        ca=_path(options.ca_file),
        cert=_path(options.cert_file),
        key=_path(options.key_file),
        user=options.user,
        password=_read_password(options.password_file) if options.password_file else "",
    )
    etcd = EtcdStore(access, owner=host_id, pin=pin)
    mirror = Mirror(etcd, keys.ROOT, snapshot_path=state_dir / "cluster.snapshot")
    return Stores(local=local, cluster=StoreAccess(etcd, mirror, ClusterView(host_id, lambda: journal.endpoints)))


def _read_password(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise EnvironmentProblem(
            f"cannot read {file}: {reason}", hint="see etcd.password_file in the configuration"
        ) from error


def _react(
    knowledge: Knowledge, engine: Engine, publisher: Publisher, own_host: HostId
) -> Callable[[frozenset[str]], None]:
    """Return what a change of a store sets in motion here.

    Endpoints, ours and others', are for looking at; only what changes routes or claims makes the kernel be compared.
    """
    own_endpoints = keys.own_endpoints_prefix(own_host)

    def react(changed: frozenset[str]) -> None:
        knowledge.invalidate()
        if _any_outside(changed, (keys.ENDPOINTS, keys.LIVE)):
            engine.follow_snapshot()
        if any(key.startswith(own_endpoints) or not key.startswith(keys.ENDPOINTS) for key in changed):
            publisher.request()

    return react


def _reconsider(coexistence: Coexistence) -> Callable[[frozenset[str]], None]:
    """Return what a network that came or went sets in motion in other people's firewalls."""

    def react(changed: frozenset[str]) -> None:
        if any(key.startswith(keys.NETWORKS) for key in changed):
            coexistence.request()

    return react


def _look_back(returning: ReturningService) -> Callable[[frozenset[str]], None]:
    """Return what claims that changed hands, and networks that are gone, set in motion."""

    def react(changed: frozenset[str]) -> None:
        if any(key.startswith((keys.BLOCKS, keys.ADDRESSES, keys.GONE)) for key in changed):
            returning.request()

    return react


def _any_outside(changed: Iterable[str], prefixes: tuple[str, ...]) -> bool:
    return any(not key.startswith(prefixes) for key in changed)


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
