"""A small kernel in memory: for tests of the engine and for demonstrations, without root.

It keeps what a kernel keeps and refuses what a kernel refuses: a name that is taken (EEXIST), an interface that is
missing (ENODEV), a table that is not there (ENOENT), other data under a map's key (EEXIST). What belongs to a link
goes with it. ``rearm`` makes the n-th operation from then on fail.
"""

import errno
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from netagent.errors import AlreadyExists, Conflict, EnvironmentProblem, KernelRejected, NetagentError, NotFound
from netagent.firewall.counting import ServedPort
from netagent.firewall.marks import Presence
from netagent.firewall.verdict import Rules, chain_names
from netagent.model.address import Address
from netagent.model.counters import Counters, TrackedConnections
from netagent.model.host import HostFacts
from netagent.model.port import AutomaticPorts, PortMapping, PortSlot
from netagent.plan.desired import (
    HOST,
    Chain,
    FdbEntry,
    InterfaceAddress,
    Link,
    Neighbour,
    Redirect,
    Route,
    Ruleset,
    Shaper,
    SourceRoute,
    State,
    SysctlName,
    TunnelSource,
    Veth,
)
from netagent.plan.operation import (
    AddAddress,
    AddAdminChains,
    AddElements,
    AddFdb,
    AddLink,
    AddNeighbour,
    AddRoute,
    AddSourceRoute,
    AddTunnelSource,
    Announce,
    DeleteAddress,
    DeleteElements,
    DeleteFdb,
    DeleteLink,
    DeleteNeighbour,
    DeleteRedirect,
    DeleteRoute,
    DeleteShaper,
    DeleteSourceRoute,
    DeleteTunnelSource,
    FlushAddress,
    FlushPort,
    Operation,
    Plan,
    ReplaceRuleset,
    SetLink,
    SetRedirect,
    SetShaper,
    SetSysctl,
)

_FIRST_INODE = 4026532000
_NO_FACTS = HostFacts(interfaces={}, routes=())


def _key(element: str) -> str:
    return element.partition(" : ")[0]


class FakeKernel:
    """Satisfies ``reconcile.ports.Kernel``. The attributes are its tables; tests read and disturb them at will."""

    def __init__(self, facts: HostFacts = _NO_FACTS) -> None:
        self.links: dict[str, Link] = {}
        self.foreign: set[str] = set()
        """Names of interfaces that are not ours."""
        self.addresses: set[InterfaceAddress] = set()
        self.routes: dict[tuple[str, str], Route] = {}
        self.neighbours: dict[tuple[str, str], Neighbour] = {}
        self.fdb: dict[tuple[str, str], FdbEntry] = {}
        self.tunnel_sources: set[TunnelSource] = set()
        self.counted: dict[str, Counters] = {}
        self.served: dict[ServedPort, Counters] = {}
        self.tracked: TrackedConnections | None = None
        self.shapers: dict[str, Shaper] = {}
        self.redirects: dict[str, Redirect] = {}
        self.sysctls: dict[SysctlName, str] = {}
        self.ruleset: Ruleset | None = None
        self.admin: tuple[Chain, ...] = ()
        self.source_routes: set[SourceRoute] = set()
        self.foreign_firewall = Rules()
        self.answers: frozenset[Address] = frozenset()
        """Whoever answers an echo."""
        self.carried: dict[Address, int] = {}
        """The largest payload of an echo that reaches a target, where that is not any."""
        self.spoiled: set[Address] = set()
        """Whom checksums reach wrong that are left to a device."""
        self.asked: list[tuple[Address, ...]] = []
        """The targets of each round of echoes."""
        self.sandboxes: dict[str, int] = {}
        """Path -> inode of the namespaces that exist."""
        self.applied: list[Operation] = []
        """Every operation carried out, in order."""
        self.fail_at: dict[int, NetagentError] = {}
        """Index of an operation, counted from the last ``rearm`` -> the error that it meets instead of being done."""
        self._facts = facts
        self._count = 0
        self._inodes = itertools.count(_FIRST_INODE)

    def rearm(self, fail_at: Mapping[int, NetagentError]) -> None:
        """Count operations from 0 again and let those at the given indices fail."""
        self._count = 0
        self.fail_at = dict(fail_at)

    async def apply(self, plan: Plan, *, carry_on: bool = False) -> None:
        """Carry out ``plan`` in order; raise the first refusal, at once or, with ``carry_on``, at the end."""
        refusals: list[NetagentError] = []
        for operation in plan.operations:
            index, self._count = self._count, self._count + 1
            try:
                if index in self.fail_at:
                    raise self.fail_at[index]
                self._carry_out(operation)
                self.applied.append(operation)
            except NetagentError as refusal:
                refusals.append(refusal)
                if not carry_on:
                    break
        if refusals:
            raise refusals[0]

    async def observe(self, desired: State) -> State:
        """Return all that is there, of sandboxes' content only what ``desired`` names."""
        broken = {name: reason for name in self.links if (reason := self._why_broken(name, desired))}
        return State(
            links=MappingProxyType({name: self._as_observed(name, desired) for name in self.links}),
            addresses=frozenset(a for a in self.addresses if a.where == HOST or a in desired.addresses),
            routes=frozenset(r for r in self.routes.values() if r.where == HOST or r in desired.routes),
            neighbours=frozenset(self.neighbours.values()),
            fdb=frozenset(self.fdb.values()),
            tunnel_sources=frozenset(self.tunnel_sources),
            shapers=frozenset(self.shapers.values()),
            redirects=frozenset(self.redirects.values()),
            sysctls=MappingProxyType({name: self.sysctls[name] for name in desired.sysctls if name in self.sysctls}),
            source_routes=frozenset(self.source_routes) & desired.source_routes,
            ruleset=self.ruleset,
            admin=self.admin,
            broken=MappingProxyType(broken),
        )

    async def observe_endpoint(self, desired: State) -> State:
        """Return what is there of one endpoint."""
        whole = await self.observe(desired)
        present: dict[str, frozenset[str]] = {}
        wanted = desired.ruleset.elements if desired.ruleset else {}
        for name, elements in wanted.items():
            keys = {_key(element) for element in elements}
            present[name] = frozenset(e for e in self._elements().get(name, frozenset()) if _key(e) in keys)
        filled = MappingProxyType({name: group for name, group in present.items() if group})
        ruleset = replace(desired.ruleset, elements=filled) if desired.ruleset else None
        return State(
            links=MappingProxyType({name: link for name, link in whole.links.items() if name in desired.links}),
            addresses=whole.addresses & desired.addresses,
            routes=whole.routes & desired.routes,
            source_routes=whole.source_routes,
            shapers=frozenset(s for s in whole.shapers if s.device in desired.links),
            redirects=frozenset(r for r in whole.redirects if r.device in desired.links),
            sysctls=whole.sysctls,
            ruleset=ruleset,
            broken=MappingProxyType({name: why for name, why in whole.broken.items() if name in desired.links}),
        )

    async def own_links(self) -> frozenset[str]:
        """Return the names of all links."""
        return frozenset(self.links)

    async def own_routes(self) -> frozenset[Route]:
        """Return the host's own routes."""
        return frozenset(route for route in self.routes.values() if route.where == HOST)

    async def facts(self) -> HostFacts:
        """Return the facts that the fake was made with."""
        return self._facts

    async def foreign_rules(self) -> Rules:
        """Return what a test has put into ``foreign_firewall``."""
        return self.foreign_firewall

    async def counters(self) -> Mapping[str, Counters]:
        """Return the counters that a test has put there, of every other link none."""
        return {name: self.counted.get(name, Counters()) for name in self.links}

    async def served_ports(self) -> Mapping[ServedPort, Counters]:
        """Return what a test has put there."""
        return self.served

    async def tracked_connections(self) -> TrackedConnections | None:
        """Return what a test has put there."""
        return self.tracked

    async def foreign_presence(self) -> Presence:
        """Return the chains of ``foreign_firewall``."""
        names = chain_names(self.foreign_firewall.listing)
        return Presence(chains=frozenset((family, chain) for family, _, chain in names))

    async def answering(
        self, pairs: Sequence[tuple[Address, Address]], *, sizes: Mapping[Address, int] = MappingProxyType({})
    ) -> frozenset[Address]:
        """Return the targets that are in ``answers`` and carry as much."""
        self.asked.append(tuple(target for _, target in pairs))
        return frozenset(
            target
            for _, target in pairs
            if target in self.answers and sizes.get(target, 0) <= self.carried.get(target, sizes.get(target, 0))
        )

    async def largest_answered(self, asked: Sequence[tuple[Address, Address, Sequence[int]]]) -> Mapping[Address, int]:
        """Return the largest size that ``carried`` lets through."""
        passed = {
            target: [size for size in sizes if size <= self.carried.get(target, size)]
            for _, target, sizes in asked
            if target in self.answers
        }
        return {target: max(sizes) for target, sizes in passed.items() if sizes}

    async def corrupted(self, pairs: Sequence[tuple[Address, Address]]) -> frozenset[Address]:
        """Return the targets that are in ``spoiled``."""
        return frozenset(target for _, target in pairs if target in self.spoiled)

    async def sandbox_inode(self, path: str) -> int:
        """Return the inode of the sandbox at ``path``, or raise NotFound."""
        if path not in self.sandboxes:
            raise NotFound(f"network namespace {path} does not exist")
        return self.sandboxes[path]

    async def are_mounts_hidden(self, caller: int, path: str) -> bool:
        """Return False: everything is seen."""
        return False

    async def create_sandbox(self, path: str) -> int:
        """Make a sandbox at ``path``, or raise AlreadyExists."""
        if path in self.sandboxes:
            raise AlreadyExists(f"{path} is in use")
        self.sandboxes[path] = next(self._inodes)
        return self.sandboxes[path]

    async def delete_sandbox(self, path: str) -> None:
        """Remove the sandbox, and with it the veth pairs that end in it."""
        self.sandboxes.pop(path, None)
        for link in tuple(self.links.values()):
            if isinstance(link.kind, Veth) and link.kind.sandbox == path:
                self._drop_link(link.name)

    async def sweep(self) -> None:
        """Do nothing: this kernel deletes at once."""

    async def drained(self) -> None:
        """Do nothing: this kernel deletes at once."""

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _carry_out(self, operation: Operation) -> None:
        match operation:
            case AddLink(link):
                self._add_link(operation, link)
            case SetLink(link):
                self._need(operation, link.name)
                self.links[link.name] = link
            case DeleteLink(link):
                self._drop_link(link.name)
            case AddAddress(address):
                self._need(operation, address.device, address.where)
                self.addresses.add(address)
            case DeleteAddress(address):
                self.addresses.discard(address)
            case AddRoute(route):
                self._need(operation, route.device, route.where)
                self.routes[route.where, str(route.destination)] = route
            case DeleteRoute(route):
                if self.routes.get((route.where, str(route.destination))) == route:
                    del self.routes[route.where, str(route.destination)]
            case AddSourceRoute(rule):
                self._need(operation, rule.device, rule.where)
                self.source_routes.add(rule)
            case DeleteSourceRoute(rule):
                self.source_routes.discard(rule)
            case SetSysctl(name, value):
                self._set_sysctl(name, value)
            case _:
                self._carry_out_table(operation)

    def _carry_out_table(self, operation: Operation) -> None:
        match operation:
            case AddNeighbour(entry):
                self._need(operation, entry.device)
                self.neighbours[entry.device, str(entry.address)] = entry
            case DeleteNeighbour(entry):
                self.neighbours.pop((entry.device, str(entry.address)), None)
            case AddFdb(fdb):
                self._need(operation, fdb.device)
                self.fdb[fdb.device, fdb.mac] = fdb
            case DeleteFdb(fdb):
                if self.fdb.get((fdb.device, fdb.mac)) == fdb:
                    del self.fdb[fdb.device, fdb.mac]
            case AddTunnelSource(source):
                self._need(operation, source.device)
                self.tunnel_sources.add(source)
            case DeleteTunnelSource(source):
                self.tunnel_sources.discard(source)
            case SetShaper(shaper):
                self._need(operation, shaper.device)
                self.shapers[shaper.device] = shaper
            case DeleteShaper(shaper):
                self.shapers.pop(shaper.device, None)
            case SetRedirect(redirect):
                self._need(operation, redirect.device)
                self._need(operation, redirect.through)
                self.redirects[redirect.device] = redirect
            case DeleteRedirect(redirect):
                self.redirects.pop(redirect.device, None)
            case FlushPort() | FlushAddress() | Announce():
                pass  # No packets, so no connections.
            case AddAdminChains(chains):
                self.admin = self.admin or chains
            case ReplaceRuleset(ruleset):
                self.ruleset = ruleset
            case AddElements(name, elements):
                self._add_elements(operation, name, elements)
            case DeleteElements(name, elements):
                gone = {_key(element) for element in elements}
                self._set_elements(name, frozenset(e for e in self._elements().get(name, ()) if _key(e) not in gone))

    def _add_link(self, operation: Operation, link: Link) -> None:
        if link.name in self.links or link.name in self.foreign:
            raise KernelRejected(str(operation), errno.EEXIST, "File exists")
        if link.master is not None:
            self._need(operation, link.master)
        if isinstance(link.kind, Veth) and not link.kind.is_given_away:
            inode = self.sandboxes.get(link.kind.sandbox)
            if inode is None or link.kind.sandbox_inode not in (0, inode):
                raise NotFound(f"network namespace {link.kind.sandbox} does not exist")
            if self._has_interface(link.kind.sandbox, link.kind.interface):
                raise Conflict(f"interface {link.kind.interface} already exists in {link.kind.sandbox}")
        self.links[link.name] = link

    def _drop_link(self, name: str) -> None:
        """Remove a link with all that belongs to it; its ports lose their master."""
        link = self.links.pop(name, None)
        if link is None:
            return
        self.links = {n: replace(k, master=None) if k.master == name else k for n, k in self.links.items()}
        ends = {(HOST, name)}
        if isinstance(link.kind, Veth):
            ends.add((link.kind.sandbox, link.kind.interface))
        self.addresses = {a for a in self.addresses if (a.where, a.device) not in ends}
        self.routes = {key: r for key, r in self.routes.items() if (r.where, r.device) not in ends}
        self.neighbours = {key: n for key, n in self.neighbours.items() if n.device != name}
        self.fdb = {key: e for key, e in self.fdb.items() if e.device != name}
        self.tunnel_sources = {s for s in self.tunnel_sources if s.device != name}
        self.shapers.pop(name, None)
        self.redirects = {k: r for k, r in self.redirects.items() if name not in (r.device, r.through)}
        self.sysctls = {key: value for key, value in self.sysctls.items() if name not in key}

    def _set_sysctl(self, name: SysctlName, value: str) -> None:
        # A per-interface setting: net/ipv4/conf/<interface>/<setting>.
        if len(name) > 4 and name[3] not in self.links and name[3] not in self.foreign | {"all", "default", "lo"}:
            raise EnvironmentProblem(f"kernel setting {'/'.join(name)} does not exist")
        self.sysctls[name] = value

    def _need(self, operation: Operation, device: str, where: str = HOST) -> None:
        on_host = where == HOST and (device in self.links or device in self.foreign)
        if not on_host and not self._has_interface(where, device):
            raise KernelRejected(str(operation), errno.ENODEV, f"interface {device} does not exist")

    def _has_interface(self, sandbox: str, interface: str) -> bool:
        kinds = (link.kind for link in self.links.values())
        return any(isinstance(k, Veth) and (k.sandbox, k.interface) == (sandbox, interface) for k in kinds)

    def _elements(self) -> Mapping[str, frozenset[str]]:
        return {} if self.ruleset is None else self.ruleset.elements

    def _set_elements(self, name: str, elements: frozenset[str]) -> None:
        if self.ruleset is None:
            return
        merged = {**self.ruleset.elements, name: elements}
        filled = MappingProxyType({key: group for key, group in merged.items() if group})
        self.ruleset = replace(self.ruleset, elements=filled)

    def _add_elements(self, operation: Operation, name: str, elements: tuple[str, ...]) -> None:
        if self.ruleset is None or name not in {declared.name for declared in self.ruleset.sets}:
            raise KernelRejected(str(operation), errno.ENOENT, "No such file or directory")
        present = {_key(element): element for element in self.ruleset.elements.get(name, frozenset())}
        if any(present.get(_key(element), element) != element for element in elements):
            raise KernelRejected(str(operation), errno.EEXIST, "File exists")
        self._set_elements(name, frozenset(present.values()) | frozenset(elements))

    def _why_broken(self, name: str, desired: State) -> str:
        link = desired.links.get(name)
        if link is None or not isinstance(link.kind, Veth) or link.kind.is_given_away:
            return ""
        inode = self.sandboxes.get(link.kind.sandbox)
        if inode is None or link.kind.sandbox_inode not in (0, inode):
            return f"network namespace {link.kind.sandbox} does not exist"
        return "" if self.links[name].kind == link.kind else "its far end is another one"

    def _as_observed(self, name: str, desired: State) -> Link:
        """Return a link as the real kernel would: what the desired state leaves open, the observation does too."""
        link, wanted = self.links[name], desired.links.get(name)
        return replace(link, mac=None) if wanted is not None and wanted.mac is None else link


AUTOMATIC_PORTS = AutomaticPorts(49153, 49162, frozenset())
"""Few enough for a test to use them up."""


class FakeReservations:
    """Satisfies ``reconcile.ports.PortReservations``: ports in ``taken`` are somebody else's."""

    def __init__(
        self,
        taken: frozenset[tuple[str, int]] = frozenset(),
        automatic: AutomaticPorts = AUTOMATIC_PORTS,
    ) -> None:
        self.taken = taken
        self.automatic = automatic
        self.held: set[PortSlot] = set()

    def reserve(self, slot: PortSlot) -> None:
        """Hold a host port; Conflict if it is taken."""
        if (slot.protocol, slot.port) in self.taken:
            raise Conflict(f"failed to bind host port {slot}: address already in use")
        self.held.add(slot)

    def release(self, slot: PortSlot) -> None:
        """Let go of it; one that is not held is no error."""
        self.held.discard(slot)

    def check_free(self, mapping: PortMapping) -> None:
        """Raise Conflict if one of the mapping's host ports is taken."""
        for slot in mapping.slots:
            if (slot.protocol, slot.port) in self.taken:
                raise Conflict(f"failed to bind host port {slot}: address already in use")

    def open_on_loopback6(self, slot: PortSlot) -> None:
        """Return None: nothing comes to a port here."""

    def automatic_ports(self) -> AutomaticPorts:
        """Return the range that was given."""
        return self.automatic
