"""The engine: takes the kernel from what it is to what the snapshot says, for one endpoint or for everything.

Both scopes are the same three steps: render, observe, apply the difference. For one endpoint the engine assumes that
nothing of it exists and looks only when the kernel says otherwise, so an attach costs no observation. Taking an
endpoint down is the same with nothing desired, and so is undoing one that failed half-way.

Passes over everything run when something asked for one (the kernel changed, an attach needs a network that is not in
the kernel yet), now and then without a reason, and again with growing pauses after a refusal. A change of the store
that concerns other hosts alone is the third scope: those hosts' parts are rendered from the snapshot that the kernel
was brought to last and from the present one, and the difference is applied (``plan/scope.py``). A settle window
gathers what comes together. Nothing is pruned while the snapshot is incomplete.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from netagent.errors import InvalidRequest, KernelRejected, NetagentError, NotFound
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import EndpointId, NetworkId
from netagent.model.snapshot import Snapshot
from netagent.plan.answering import source_routes
from netagent.plan.desired import ALIAS_PREFIX, Ruleset, SourceRoute, State, Veth
from netagent.plan.diff import diff
from netagent.plan.flows import confirm_flows
from netagent.plan.names import veth_name
from netagent.plan.operation import Plan
from netagent.plan.render import networks_here, render_endpoint, render_everything, render_network, with_tables
from netagent.plan.scope import changed_peers, render_peers
from netagent.plan.union import union
from netagent.reconcile.ports import Kernel

log = logging.getLogger("netagent.reconcile")

SETTLE_S = 0.01
"""How long a pass waits for more of the same: a burst of store events makes one pass."""

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
RESYNC_S = 300.0
"""How often everything is compared without a reason: events are a hint, the comparison is the truth."""

_NOTHING = State(ruleset=Ruleset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the last pass over everything ended: ``error`` None if the kernel is as it should be."""

    passes: int = 0
    operations: int = 0
    error: str | None = None


class Engine:
    """One per agent. ``snapshot`` returns the present snapshot."""

    def __init__(self, kernel: Kernel, snapshot: Callable[[], Snapshot]) -> None:
        self._kernel = kernel
        self._snapshot = snapshot
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._is_in_doubt = True
        self._reached: Snapshot | None = None
        """What the kernel was brought to last, None if it was not reached."""
        self._present: frozenset[NetworkId] = frozenset()
        self.status = Status()

    def request(self) -> None:
        """Ask for a pass over everything soon."""
        self._is_in_doubt = True
        self._wake.set()

    def follow_snapshot(self) -> None:
        """Ask for the snapshot's changes to be brought into the kernel soon; the kernel is not looked at for them."""
        self._wake.set()

    async def run(self) -> None:
        """Make passes when they are asked for, until cancelled."""
        retry_s = FIRST_RETRY_S
        loop = asyncio.get_running_loop()
        resync_at = loop.time() + RESYNC_S
        while True:
            # Not wait_for: until Python 3.12 it may swallow the cancellation that ends this task.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(resync_at if self.status.error is None else loop.time() + retry_s):
                    await self._wake.wait()
            await asyncio.sleep(SETTLE_S)
            try:
                if loop.time() >= resync_at or not await self.follow():
                    resync_at = loop.time() + RESYNC_S
                    await self.reconcile()
                retry_s = FIRST_RETRY_S
            except NetagentError as error:
                retry_s = min(retry_s * 2, LAST_RETRY_S)
                log.error("the kernel is not as it should be: %s; again in %.1f s", error, retry_s)

    async def follow(self) -> bool:
        """Bring into the kernel what other hosts have changed; False if that is not all, or not certain."""
        async with self._lock:
            if self._is_in_doubt or self._reached is None:
                return False
            self._wake.clear()
            before, after = self._reached, self._snapshot()
            changed = changed_peers(before, after)
            if changed is None:
                return False
            plan = diff(render_peers(after, changed), render_peers(before, changed)) if changed else Plan()
            # Whatever comes in between is not known to have been done.
            self._reached = None
            try:
                await self._apply_logged(plan)
            except NetagentError as error:
                log.warning("%s", error)
                return False
            self._reached = after
            self.status = Status(passes=self.status.passes + 1, operations=len(plan.operations))
        return True

    async def _apply_logged(self, plan: Plan, *, carry_on: bool = False) -> None:
        if plan:
            log.info("%d operations bring the kernel up to date", len(plan.operations))
            for operation in plan.operations:
                log.debug("to do: %s", operation)
            await self._kernel.apply(plan, carry_on=carry_on)

    async def reconcile(self) -> Plan:
        """Compare everything and apply the difference; return what was applied. Raises KernelRejected."""
        async with self._lock:
            self._wake.clear()
            self._is_in_doubt, self._reached = False, None
            snapshot = self._snapshot()
            try:
                desired = render_everything(snapshot)
                if not self.status.passes:
                    await self._kernel.apply(confirm_flows(desired))
                plan = await self._compare(snapshot, desired)
                # One object that cannot be made must not keep the others from being made.
                await self._apply_logged(plan, carry_on=True)
            except NetagentError as error:
                self.status = replace(self.status, passes=self.status.passes + 1, error=str(error))
                self._present = frozenset()
                self._present = await self._networks_in_place(snapshot)
                raise
            self.status = Status(passes=self.status.passes + 1, operations=len(plan.operations))
            self._present = frozenset(network.id for network in networks_here(snapshot))
            self._reached = snapshot
        return plan

    def is_in_place(self, network_id: NetworkId) -> bool:
        """Tell whether the last pass brought all of a network into the kernel, whatever else was refused."""
        return network_id in self._present

    async def leave(self, network_id: NetworkId) -> bool:
        """Bring the kernel up to date and tell whether it holds nothing of a network any more."""
        try:
            await self.reconcile()
        except NetagentError as error:
            log.warning("%s", error)
        async with self._lock:
            observed = await self._kernel.observe(_NOTHING)
        return all(link.alias != f"{ALIAS_PREFIX}{network_id}" for link in observed.links.values())

    async def _networks_in_place(self, snapshot: Snapshot) -> frozenset[NetworkId]:
        """Return the networks of which, after a refusal, everything is in the kernel all the same."""
        rendered = {network.id: with_tables(render_network(snapshot, network)) for network in networks_here(snapshot)}
        observed = await self._kernel.observe(with_tables(union(rendered.values())))
        in_place = {identity: not diff(state, observed, prune=False) for identity, state in rendered.items()}
        return frozenset(identity for identity, is_there in in_place.items() if is_there)

    async def _compare(self, snapshot: Snapshot, desired: State) -> Plan:
        observed = await self._kernel.observe(desired)
        desired, observed = await self._without_unreachable(desired, observed)
        lost = await self._lost_endpoints(snapshot, desired, observed)
        if lost:
            # Nothing can be made in a namespace that is gone; what is left of the endpoint is pruned.
            kept = Endpoints.of(endpoint for key, endpoint in snapshot.endpoints.items() if key not in lost)
            desired = render_everything(snapshot.with_endpoints(kept))
        return diff(desired, observed, prune=snapshot.complete)

    async def _without_unreachable(self, desired: State, observed: State) -> tuple[State, State]:
        """Leave alone the links whose namespace is alive, or its end would be gone, but has no path any more.

        So it is with ``attach --netns PID`` when that process ends and others stay.
        """
        gone: dict[str, str] = {}
        for name, link in desired.links.items():
            if name in observed.broken and isinstance(link.kind, Veth) and not await self._exists(link.kind.sandbox):
                gone[name] = link.kind.sandbox
        if not gone:
            return desired, observed
        where = frozenset(gone.values())
        return (
            replace(
                desired,
                links={name: link for name, link in desired.links.items() if name not in gone},
                addresses=frozenset(a for a in desired.addresses if a.where not in where),
                routes=frozenset(r for r in desired.routes if r.where not in where),
            ),
            replace(observed, links={name: link for name, link in observed.links.items() if name not in gone}),
        )

    async def _exists(self, sandbox: str) -> bool:
        try:
            await self._kernel.sandbox_inode(sandbox)
        except (NotFound, InvalidRequest):
            return False
        return True

    async def _lost_endpoints(self, snapshot: Snapshot, desired: State, observed: State) -> frozenset[EndpointId]:
        """Return the endpoints whose namespace is gone, or is another one at the same path."""
        lost = set()
        for endpoint in snapshot.endpoints.values():
            name = veth_name(endpoint.id)
            if name not in desired.links or (name in observed.links and name not in observed.broken):
                continue
            if not endpoint.sandbox:
                # Its end was given away, and went with the namespace that it was taken to.
                lost.add(endpoint.id)
                continue
            try:
                inode = await self._kernel.sandbox_inode(endpoint.sandbox)
            except (NotFound, InvalidRequest):
                inode = None
            if inode is None or (endpoint.sandbox_inode and inode != endpoint.sandbox_inode):
                log.warning("container %s: its namespace %s is gone", endpoint.container_name, endpoint.sandbox)
                lost.add(endpoint.id)
        return frozenset(lost)

    async def attach(self, endpoint: Endpoint) -> None:
        """Put one endpoint of the snapshot into the kernel. On failure nothing of it is left there."""
        if endpoint.network_id not in self._present:
            await self._bring_in(endpoint.network_id)
        async with self._lock:
            snapshot = self._snapshot()
            desired = render_endpoint(snapshot, endpoint)
            try:
                await self._apply_endpoint(desired)
                # The default route may have moved here from another network of the container.
                rules = _rules_beside(snapshot, endpoint)
                if rules:
                    await self._kernel.apply(diff(State(source_routes=rules), State()))
            except BaseException:
                await asyncio.shield(self._kernel.apply(diff(_NOTHING, desired)))
                raise

    async def _bring_in(self, network_id: NetworkId) -> None:
        try:
            await self.reconcile()
        except NetagentError:
            self.request()
            if network_id not in self._present:
                raise
        if network_id not in self._present:
            raise NotFound(f"network {network_id[:12]} is not on this host")

    async def _apply_endpoint(self, desired: State) -> None:
        try:
            await self._kernel.apply(diff(desired, _NOTHING))
        except KernelRejected as error:
            if error.errno != errno.EEXIST:
                raise
            # A crash or a pass over everything was here before us: look, then do what is left.
            observed = await self._kernel.observe_endpoint(desired)
            await self._kernel.apply(diff(desired, observed))

    async def change(self, before: Endpoint, after: Endpoint) -> None:
        """Take one endpoint of the kernel from ``before`` to ``after``, which differ in ports, limits or default route.

        Both are rendered, so what others changed meanwhile is left alone. On failure it is as before, or will be soon.
        """
        async with self._lock:
            snapshot = self._snapshot()
            old, new = render_endpoint(snapshot, before), render_endpoint(snapshot, after)
            try:
                await self._kernel.apply(diff(new, old))
            except BaseException:
                self.request()
                raise

    async def detach(self, endpoints: Sequence[Endpoint]) -> None:
        """Take endpoints out of the kernel; what is gone already is no error."""
        async with self._lock:
            snapshot = self._snapshot()
            for endpoint in endpoints:
                if endpoint.network_id in snapshot.networks:
                    await self._kernel.apply(diff(_NOTHING, render_endpoint(snapshot, endpoint)))
                    if len(snapshot.endpoints_of(endpoint.container_id)) > 1:
                        await self._forget_rules_towards(snapshot, endpoint)
                else:
                    self.request()

    async def _forget_rules_towards(self, snapshot: Snapshot, endpoint: Endpoint) -> None:
        """Take away the rules that other endpoints of a container have because of one that it loses."""
        states = EndpointState.ATTACHED, EndpointState.DETACHING
        with_it, without_it = (
            snapshot.with_endpoints(snapshot.endpoints.put(replace(endpoint, state=state))) for state in states
        )
        kept, present = _rules_beside(without_it, endpoint), _rules_beside(with_it, endpoint)
        await self._kernel.apply(diff(State(source_routes=kept), State(source_routes=present)))


def _rules_beside(snapshot: Snapshot, endpoint: Endpoint) -> frozenset[SourceRoute]:
    """Return the source routes of the other endpoints of a container."""
    beside = (e for e in snapshot.endpoints_of(endpoint.container_id) if e.id != endpoint.id)
    return frozenset(
        route
        for e in beside
        if e.state is EndpointState.ATTACHED and e.network_id in snapshot.networks
        for route in source_routes(snapshot, e, snapshot.networks[e.network_id])
    )
