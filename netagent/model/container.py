"""Containers: what has a name, a sandbox and endpoints, whoever started it."""

from dataclasses import dataclass, field
from enum import StrEnum

from netagent.model.ids import ContainerId
from netagent.model.resolver import ExtraHost, Link, Resolver


class ContainerKind(StrEnum):
    """Who owns the processes: netagent (``run``), somebody else (``attach``), a runtime that calls CNI, or Docker."""

    RUN = "run"
    ATTACHED = "attached"
    CNI = "cni"
    DOCKER = "docker"


class ContainerState(StrEnum):
    """Where a container is in its life. ``CREATING`` found at start is removed, ``REMOVING`` is removed on."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    REMOVING = "removing"


class NetworkMode(StrEnum):
    """How a container is connected, as ``--network`` says it."""

    NETWORKS = "networks"
    HOST = "host"
    NONE = "none"
    CONTAINER = "container"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """An IPAM plugin that is not ours: its name, the directories to look for it, and what a runtime hands a plugin.

    ``variables`` are pairs of CNI variables, ``configuration`` is the text for its standard input.
    """

    plugin: str
    path: str
    variables: tuple[tuple[str, str], ...] = ()
    configuration: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an interface of a CNI container comes from: ``configuration`` is the ``name`` of the runtime's.

    ``ipam`` is who gave its addresses and must be told when they are free again, if netagent did not.
    """

    interface: str
    configuration: str
    ipam: Delegation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container of this host.

    ``sandbox`` is the path of its network namespace, empty for the host's own; ``owns_sandbox`` if netagent made it.
    ``runtime_id`` is what its runtime calls it (CNI_CONTAINERID), empty for the others.
    ``shares`` is the container whose sandbox it is, in the mode ``container:NAME``. ``spec`` is the OCI runner's own
    record (JSON), empty for containers that netagent did not start. Times are RFC 3339 in UTC. ``exposed`` are the
    ports that it serves, published or not, as ``80/tcp``. ``origins`` has one entry an interface, for CNI alone.
    ``resolver`` is what differs from the host's own settings. ``labels`` are sorted by name.
    """

    id: ContainerId
    name: str
    kind: ContainerKind
    mode: NetworkMode = NetworkMode.NETWORKS
    shares: ContainerId | None = None
    sandbox: str = ""
    owns_sandbox: bool = False
    runtime_id: str = ""
    state: ContainerState = ContainerState.CREATING
    command: tuple[str, ...] = ()
    hostname: str = ""
    auto_remove: bool = False
    created: str = ""
    started: str = ""
    finished: str = ""
    exit_code: int | None = None
    spec: str = ""
    exposed: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()
    resolver: Resolver = field(default_factory=Resolver)
    extra_hosts: tuple[ExtraHost, ...] = ()
    links: tuple[Link, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def origin_of(self, interface: str) -> Origin | None:
        """Return where ``interface`` comes from, or None if no runtime asked for it by CNI."""
        return next((origin for origin in self.origins if origin.interface == interface), None)

    @property
    def is_up(self) -> bool:
        """Whether its network is in place: it runs, or it was created and waits for its start."""
        return self.state in (ContainerState.CREATED, ContainerState.RUNNING)
