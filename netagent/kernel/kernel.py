"""The kernel of one network namespace, for asyncio: everything is done by one worker thread, in order.

A cancelled call gives up waiting, not the work: what the worker has begun it finishes, and the next call comes after.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TypeVar

from netagent.errors import KernelRejected
from netagent.firewall.counting import ServedPort
from netagent.firewall.marks import Presence
from netagent.firewall.verdict import Rules
from netagent.kernel import checksums, encode, links, mounts, netns, probe
from netagent.kernel.announce import Announcer
from netagent.kernel.apply import Workplace, apply
from netagent.kernel.apply import failpoints as apply_failpoints
from netagent.kernel.conntrack import Flusher, tracked_connections
from netagent.kernel.counters import read_counters
from netagent.kernel.events import Watch
from netagent.kernel.facts import observe_facts
from netagent.kernel.firewall import NftablesFirewall
from netagent.kernel.foreign import read_foreign_rules, read_presence
from netagent.kernel.iptables import IptablesFirewall
from netagent.kernel.nftables import Nftables
from netagent.kernel.observe import observe, observe_endpoint, own_links, own_routes
from netagent.kernel.reaper import Reaper, delete_half_made
from netagent.kernel.remains import remove_remains
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.sandboxes import open_sandbox
from netagent.model.address import Address
from netagent.model.counters import Counters, TrackedConnections
from netagent.model.host import HostFacts
from netagent.plan.desired import Route, State
from netagent.plan.operation import Plan

_T = TypeVar("_T")


def failpoints() -> tuple[str, ...]:
    """Return the names of all crash points of this package."""
    return (*apply_failpoints(), *netns.failpoints())


class Kernel:
    """Carries out plans in one network namespace and the sandboxes that hang on it, and says what is there.

    ``namespace`` is the path of the namespace to work in; None stands for the one of the process. ``iptables`` is the
    command of that name (or ``iptables-nft``, ``iptables-legacy``) to use for the firewall; None stands for nftables.
    """

    def __init__(self, *, namespace: str | None = None, iptables: str | None = None) -> None:
        self._namespace = namespace
        self._iptables = iptables
        self._reaper = Reaper(self._enter)
        self._flusher = Flusher(self._enter)
        self._announcer = Announcer(self._enter)
        self._worker = ThreadPoolExecutor(1, "netagent-kernel", initializer=self._enter)
        self._prober = ThreadPoolExecutor(1, "netagent-probe", initializer=self._enter)
        self._place: Workplace | None = None

    async def apply(self, plan: Plan, *, carry_on: bool = False) -> None:
        """Carry out ``plan`` in order; with ``carry_on`` also what comes after a refusal.

        Raises the first refusal: KernelRejected, Conflict (a name taken in a sandbox), NotFound (a sandbox is
        gone), InvalidRequest (it is none) or EnvironmentProblem (privilege or kernel feature missing).
        """
        await self._run(lambda place: apply(place, plan, carry_on=carry_on))

    async def observe(self, desired: State) -> State:
        """Return all that is ours by mark, and the present values of the settings that ``desired`` names."""
        return await self._run(lambda place: observe(place, desired))

    async def observe_endpoint(self, desired: State) -> State:
        """Return what is there already of one endpoint."""
        return await self._run(lambda place: observe_endpoint(place, desired))

    async def own_links(self) -> frozenset[str]:
        """Return the names of all links of ours, without those that wait for their deletion."""
        return await self._run(lambda place: own_links(place.rtnl))

    async def own_routes(self) -> frozenset[Route]:
        """Return our routes in the host's own table."""
        return await self._run(lambda place: own_routes(place.rtnl))

    async def facts(self) -> HostFacts:
        """Return the machine's own interfaces and routes, without ours."""
        return await self._run(lambda place: observe_facts(place.rtnl))

    async def foreign_rules(self) -> Rules:
        """Return the rules of all nftables tables that are not netagent's; the administrator's are among them."""
        return await self._run(lambda place: read_foreign_rules(place.nft))

    async def counters(self) -> Mapping[str, Counters]:
        """Return the counters of every link of ours by name; drops of its shaper are among those on sending."""
        return await self._run(lambda place: read_counters(place.rtnl))

    async def served_ports(self) -> Mapping[ServedPort, Counters]:
        """Return what published ports have received and sent, by the container's address, protocol and port."""
        return await self._run(lambda place: place.firewall.served())

    async def tracked_connections(self) -> TrackedConnections | None:
        """Return how full this namespace's table of tracked connections is, None where none are tracked."""
        return await self._run(lambda _: tracked_connections())

    async def foreign_presence(self) -> Presence:
        """Return which chains other programs have."""
        return await self._run(lambda place: read_presence(place.nft))

    async def answering(
        self, pairs: Sequence[tuple[Address, Address]], *, sizes: Mapping[Address, int] = MappingProxyType({})
    ) -> frozenset[Address]:
        """Return the targets among ``pairs`` of source and target that answer an echo within a second.

        ``sizes`` are octets of payload in the echo to a target, which is not taken apart on its way.
        """
        return await asyncio.get_running_loop().run_in_executor(self._prober, probe.answering, pairs, sizes)

    async def largest_answered(self, asked: Sequence[tuple[Address, Address, Sequence[int]]]) -> Mapping[Address, int]:
        """Return for each target the largest of the payload sizes, given with source and target, that it answers."""
        return await asyncio.get_running_loop().run_in_executor(self._prober, probe.largest, asked)

    async def corrupted(self, pairs: Sequence[tuple[Address, Address]]) -> frozenset[Address]:
        """Return the targets among ``pairs`` of source and target that checksums left to a device reach wrong."""
        return await asyncio.get_running_loop().run_in_executor(self._prober, checksums.corrupted, pairs)

    async def sandbox_inode(self, path: str) -> int:
        """Return the inode of the namespace at ``path``; NotFound if absent, InvalidRequest if no container's."""
        return await self._run(lambda place: _sandbox_inode(place, path))

    async def are_mounts_hidden(self, caller: int, path: str) -> bool:
        """Tell whether what process ``caller`` (0: unknown) mounts at ``path`` certainly is not seen here."""
        return await self._run(lambda _: mounts.are_mounts_hidden(caller, path))

    async def create_sandbox(self, path: str) -> int:
        """Make a network namespace with loopback up and keep it by a mount at ``path``; return its inode."""
        return await self._run(lambda _: netns.create_namespace(path, _bring_loopback_up))

    async def delete_sandbox(self, path: str) -> None:
        """Let go of the network namespace at ``path``; one that is gone is no error."""
        await self._run(lambda _: netns.delete_namespace(path))

    async def sweep(self) -> None:
        """Delete what a crash left: links half made, and links retired but not yet deleted. For the start."""
        await self._run(lambda place: delete_half_made(place.rtnl))
        await self._run(lambda place: links.delete_unmarked_switched(place.rtnl))
        self._reaper.wake()
        await self.drained()

    async def drained(self) -> None:
        """Wait until the links deleted and connections forgotten so far are gone, and all announcements are out."""
        await asyncio.wrap_future(self._reaper.drained())
        await asyncio.wrap_future(self._flusher.drained())
        await asyncio.wrap_future(self._announcer.drained())

    @contextlib.asynccontextmanager
    async def watched(
        self,
        changed: Callable[[], None],
        *,
        surroundings: Callable[[], None] = lambda: None,
        uplinks: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[None]:
        """Call ``changed`` on the event loop whenever something of ours may have been changed by somebody else.

        And ``surroundings`` when other programs' chains, or addresses of the machine's own interfaces, have changed,
        ``uplinks`` when such interfaces, their addresses or the machine's own routes have.
        """
        watch = await self._run(lambda place: Watch(place.rtnl, place.firewall, changed, surroundings, uplinks))
        watch.start()
        try:
            yield
        finally:
            watch.close()

    async def retire_other_firewalls(self) -> None:
        """Remove what an agent left that used another firewall than this one; not before this one is in place."""
        await self._run(lambda place: remove_remains(place.firewall, place.nft, place.rtnl))

    async def close(self) -> None:
        """Finish what was begun, close all sockets and end all threads."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._worker, self._close_place)
        await loop.run_in_executor(None, self._worker.shutdown)
        await loop.run_in_executor(None, self._prober.shutdown)
        await loop.run_in_executor(None, self._reaper.close)
        await loop.run_in_executor(None, self._flusher.close)
        await loop.run_in_executor(None, self._announcer.close)

    async def _run(self, function: Callable[[Workplace], _T]) -> _T:
        """Return ``function`` of the workplace, called on the worker thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, lambda: function(self._workplace()))
        except OSError as error:
            raise KernelRejected("read its tables", error.errno or 0, str(error)) from error

    def _enter(self) -> None:
        """Bring a new thread into the namespace to work in."""
        if self._namespace is not None:
            namespace = netns.open_namespace(self._namespace)
            netns.enter(namespace)
            namespace.close()

    def _workplace(self) -> Workplace:
        if self._place is None:
            nft, rtnl = Nftables(), Rtnl()
            self._place = Workplace(
                home=netns.open_own_namespace(),
                rtnl=rtnl,
                firewall=NftablesFirewall(nft) if self._iptables is None else IptablesFirewall(self._iptables, rtnl),
                nft=nft,
                reaper=self._reaper,
                flusher=self._flusher,
                announcer=self._announcer,
            )
        return self._place

    def _close_place(self) -> None:
        if self._place is not None:
            self._place.rtnl.close()
            self._place.firewall.close()
            self._place.nft.close()
            self._place.home.close()
            self._place = None


def _sandbox_inode(place: Workplace, path: str) -> int:
    namespace = open_sandbox(path, place.home)
    namespace.close()
    return namespace.inode


def _bring_loopback_up() -> None:
    rtnl = Rtnl()
    try:
        rtnl.transact([encode.set_up(encode.LOOPBACK_INDEX)])
    finally:
        rtnl.close()
