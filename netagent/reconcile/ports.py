"""What the engine and the services need of the kernel and of the store, declared by their user.

The real classes (``kernel.kernel.Kernel``, ``store.sqlite.SqliteStore``, ``store.etcd.EtcdStore``) and the fakes
satisfy these protocols by their shape; ``daemon/wiring.py`` is the one place that names both sides.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from socket import socket
from types import MappingProxyType
from typing import Protocol, TypeAlias

from netagent.firewall.counting import ServedPort
from netagent.firewall.marks import Needs, Presence
from netagent.firewall.verdict import Rules
from netagent.model.address import Address
from netagent.model.counters import Counters, TrackedConnections
from netagent.model.host import HostFacts
from netagent.model.port import AutomaticPorts, PortMapping, PortSlot
from netagent.plan.desired import Route, State
from netagent.plan.operation import Plan


class Kernel(Protocol):
    """The Linux kernel of one network namespace and of the sandboxes that hang on it."""

    async def apply(self, plan: Plan, *, carry_on: bool = False) -> None:
        """Carry out ``plan`` in order, in batches; raise the first refusal.

        At once, or with ``carry_on`` after everything else of the plan that can be done was done.
        """

    async def observe(self, desired: State) -> State:
        """Return all that is ours by mark, and of the settings named in ``desired`` their present values.

        ``desired`` also says which sandboxes to look into: those of its veth links. A veth whose end in the sandbox
        is missing is named in ``broken``.
        """

    async def observe_endpoint(self, desired: State) -> State:
        """Return what is there already of one endpoint: its link, its sandbox side and its elements."""

    async def own_links(self) -> frozenset[str]:
        """Return the names of all links of ours, without those that wait for their deletion."""

    async def own_routes(self) -> frozenset[Route]:
        """Return our routes in the host's own table."""

    async def facts(self) -> HostFacts:
        """Return the machine's own interfaces and routes, without ours."""

    async def foreign_rules(self) -> Rules:
        """Return what other people's firewall rules say, as far as it can be read."""

    async def counters(self) -> Mapping[str, Counters]:
        """Return what every link of ours has received and sent, by name; drops of its shaper among those on sending."""

    async def served_ports(self) -> Mapping[ServedPort, Counters]:
        """Return what published ports have received and sent, those of which anything has passed."""

    async def tracked_connections(self) -> TrackedConnections | None:
        """Return how full the table of tracked connections is, None where none are tracked."""

    async def foreign_presence(self) -> Presence:
        """Return which chains other programs' firewalls have."""

    async def answering(
        self, pairs: Sequence[tuple[Address, Address]], *, sizes: Mapping[Address, int] = MappingProxyType({})
    ) -> frozenset[Address]:
        """Return the targets among ``pairs`` of source and target that answer an echo within a second.

        ``sizes`` are octets of payload in the echo to a target, which is not taken apart on its way.
        """

    async def largest_answered(self, asked: Sequence[tuple[Address, Address, Sequence[int]]]) -> Mapping[Address, int]:
        """Return for each target the largest of the payload sizes, given with source and target, that it answers.

        Nothing is taken apart on its way. Targets that answer none within a second are left out.
        """

    async def corrupted(self, pairs: Sequence[tuple[Address, Address]]) -> frozenset[Address]:
        """Return the targets among ``pairs`` of source and target that checksums left to a device reach wrong."""

    async def sandbox_inode(self, path: str) -> int:
        """Return the inode of the network namespace at ``path``; NotFound or InvalidRequest if it is none."""

    async def are_mounts_hidden(self, caller: int, path: str) -> bool:
        """Tell whether a namespace that process ``caller`` keeps at ``path`` by a mount certainly is not seen here.

        0 stands for a process of another pid namespace.
        """

    async def create_sandbox(self, path: str) -> int:
        """Make a network namespace with loopback up and keep it by a mount at ``path``; return its inode."""

    async def delete_sandbox(self, path: str) -> None:
        """Let go of the network namespace at ``path``; one that is gone is no error."""


class PortReservations(Protocol):
    """Host ports held by bound sockets, so that no other process takes a published one."""

    def reserve(self, slot: PortSlot) -> None:
        """Hold a host port; Conflict if a process of the host has it. One that is held already stays."""

    def release(self, slot: PortSlot) -> None:
        """Let go of it; one that is not held is no error."""

    def check_free(self, mapping: PortMapping) -> None:
        """Raise Conflict if a process of the host has one of the mapping's host ports, without holding any."""

    def open_on_loopback6(self, slot: PortSlot) -> socket | None:
        """Return a socket for what comes to a held port on ::1, None if the port is not held."""

    def automatic_ports(self) -> AutomaticPorts:
        """Return where host ports that nobody named come from."""


class ForeignFirewall(Protocol):
    """Somebody else's firewall on this host, where marked accepts of ours have their place."""

    @property
    def name(self) -> str:
        """What the configuration calls it."""

    def reconcile(self, needs: Needs | None, presence: Presence) -> Sequence[str]:
        """Bring our marks there to what ``needs`` asks for, None: none. Blocks; where it is not there it does nothing.

        Return what was done, a line each. Raises EnvironmentProblem.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreEntry:
    """One key of the store with its value and the revision that last changed it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A guard: the key must not exist."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unchanged:
    """A guard: the key's last change must be ``revision``."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsentBelow:
    """A guard: no key may begin with ``prefix``."""

    prefix: str


Guard: TypeAlias = Absent | Unchanged | AbsentBelow


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A write: set a key. ``leased`` binds it to this agent's lease, so that it goes when the agent does."""

    key: str
    value: bytes
    leased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """A write: remove a key; one that is absent is no error."""

    key: str


Write: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All entries below a prefix, as of one revision of the store."""

    entries: tuple[StoreEntry, ...]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One key changed. ``value`` None: it was removed."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What the watch saw up to ``revision``, in order. All changes of one transaction come together."""

    changes: tuple[Change, ...]
    revision: int


class Doubt(StrEnum):
    """Why a watch lists everything."""

    START = "start"
    """Nothing was known yet."""
    DUE = "due"
    """From time to time, to compare."""
    COMPACTED = "compacted"
    """What happened meanwhile is not told any more."""
    CANCELLED = "cancelled"
    ANOTHER_STORE = "another store"
    """Another cluster, or another history than that which was followed."""
    DISORDER = "disorder"
    """Events came in the wrong order."""
    UNTOLD = "untold"
    """Something has happened of which no event came."""
    LEASE = "lease"
    """This process's lease is not known any more, so perhaps the store is not the same."""
    ASKED = "asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relisted:
    """The watch could not go on without a gap (or has just begun): here is everything anew."""

    listing: Listing
    why: Doubt = Doubt.START


WatchEvent: TypeAlias = Changes | Relisted


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatistics:
    """What went wrong between this process and its store since it started; nothing, if the store is part of it.

    ``repeated_calls`` were made again after a failure, elsewhere or later. ``lost_replies`` of transactions had to be
    found out about, and of ``unknown_outcomes`` it could not be. ``silent_s``: the seconds since the watch heard of
    the store last, None without one that stands.
    """

    repeated_calls: int = 0
    lost_replies: int = 0
    unknown_outcomes: int = 0
    silent_s: float | None = None


class Store(Protocol):
    """A small transactional key-value store with a watch: etcd, or SQLite on a single host.

    Every call ends within a few seconds: with its answer or with Unavailable.
    """

    async def get(self, key: str) -> StoreEntry | None:
        """Return one entry, or None."""

    async def list(self, prefix: str) -> Listing:
        """Return all entries whose key begins with ``prefix``, sorted by key."""

    async def transact(self, guards: Sequence[Guard], writes: Sequence[Write]) -> int | None:
        """Carry out all ``writes`` if all ``guards`` hold, else none; return the new revision, or None if not.

        A reply that got lost is resolved before this returns or raises: Unavailable means nothing was written, or
        that it could not be learnt (``maybe_applied`` in the error's facts).
        """

    def watch(self, prefix: str) -> AsyncIterator[WatchEvent]:
        """Yield first a Relisted, then every change below ``prefix`` without gap or repetition; never ends by itself.

        While the store is away it waits and tries again; after doubt it yields another Relisted.
        """

    def doubt(self, why: Doubt, reason: str) -> bool:
        """Let every watch list anew; False where there is nothing to be doubted. ``reason`` is for the log."""

    def on_lease_replaced(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` each time the leased keys are gone and can be put again."""

    @property
    def is_connected(self) -> bool:
        """Whether the last contact succeeded."""

    @property
    def lease_remaining_s(self) -> float | None:
        """For how many seconds more leased keys of ours certainly exist; None if they never go by themselves."""

    @property
    def statistics(self) -> StoreStatistics:
        """How it went so far."""

    async def close(self) -> None:
        """End all calls and tasks."""
