"""Endpoints: connecting a sandbox to networks, and taking it off again.

``attach`` from top to bottom: everything is checked and decided before anything changes; the intention goes to the
journal in one transaction; then come the claims, the kernel, and the journal's completion. Whatever fails on the way
takes the same road back: the endpoint's part of the kernel is reconciled to nothing and its row is removed. Claims in
the store that no row asks for any more are given back by ``services/publisher.py``, now or after a restart.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from netagent.errors import AlreadyExists, Conflict, Exhausted, NetagentError, NotFound
from netagent.ipam.allocate import choose_address, choose_in_ranges, needs_claim
from netagent.model.address import derive_mac
from netagent.model.container import Container, ContainerKind
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.ids import EndpointId, short
from netagent.model.network import Network, NetworkState
from netagent.model.port import PortMapping
from netagent.model.rate import Rate
from netagent.model.snapshot import Snapshot
from netagent.plan.names import bridge_mac
from netagent.plan.ways_out import changed_ways_out, choose_ways_out
from netagent.services.blocks import BlockService
from netagent.services.context import Context
from netagent.services.link_local import refuse_taken_link_locals
from netagent.services.ports import PortService
from netagent.services.wanted import Wanted
from netagent.store import keys

log = logging.getLogger("netagent.endpoints")

BRIDGE_PORT_LIMIT = 1023
"""Ports of one Linux bridge: BR_MAX_PORTS - 1, net/bridge/br_private.h."""


class EndpointService:
    """Attach and detach, for every front door."""

    def __init__(self, context: Context, blocks: BlockService, ports: PortService) -> None:
        self._context = context
        self._blocks = blocks
        self._ports = ports

    def check(self, wanted: Iterable[Wanted], *, ours: Iterable[Endpoint] = ()) -> None:
        """Refuse what cannot be had on this host now. ``ours`` are endpoints whose fixed addresses count as free."""
        asked = tuple(wanted)
        self._check_networks(asked, ours)
        for want in asked:
            self._ports.check(want.ports, want.network)

    def _check_networks(self, wanted: Sequence[Wanted], ours: Iterable[Endpoint]) -> None:
        own = {(e.network_id, a.address) for e in ours for a in e.addresses}
        snapshot = self._context.snapshot()
        refuse_taken_link_locals(((want.network, a) for want in wanted for a in want.link_local), snapshot, ours)
        for want in wanted:
            current = snapshot.networks.get(want.network.id)
            if current is None:
                raise NotFound(f"network {want.network.name} not found", hint="it was removed a moment ago")
            if current.state is NetworkState.DELETING:
                raise Conflict(f"network {want.network.name} is being deleted", hint="wait until it is gone")
            here = snapshot.endpoints_in(want.network.id)
            if len(here) >= BRIDGE_PORT_LIMIT and sum(e.in_kernel for e in here) >= BRIDGE_PORT_LIMIT:
                raise Exhausted(
                    f"network {want.network.name} has {BRIDGE_PORT_LIMIT} containers here, all that a bridge takes",
                    hint="use another network",
                )
            for address in want.addresses:
                if (want.network.id, address) not in own:
                    needs_claim(snapshot, want.network, address)
            _refuse_taken_mac(want, snapshot, ours)

    async def attach(self, container: Container, wanted: Sequence[Wanted]) -> tuple[Endpoint, ...]:
        """Connect a container's sandbox to networks; all or nothing, also of the container if it is a new one."""
        previous = self._context.journal.endpoints_of(container.id)
        for want in wanted:
            taken = next((e for e in previous if e.in_kernel and e.interface == want.interface), None)
            if taken is not None:
                raise AlreadyExists(
                    f"interface {want.interface} of container {container.name} is attached already",
                    hint="detach it first, or use another interface name",
                )
        dormant = {e.interface: e for e in previous if e.state is EndpointState.DORMANT}
        self.check(wanted, ours=dormant.values())
        inode = await self._context.kernel.sandbox_inode(container.sandbox)
        for want in wanted:
            await self._blocks.ensure(want.network, want.addresses)
        is_new = container.id not in self._context.journal.containers
        endpoints = self._intend(container, wanted, inode, dormant)
        try:
            await self.claim(endpoints)
            # Told while the kernel works, so that the wait for it, below, is short.
            self._context.names.request(e.id for e in endpoints)
            for endpoint in endpoints:
                await self._context.engine.attach(endpoint)
        except BaseException:
            await self._withdraw(endpoints, dormant, new=container if is_new else None)
            raise
        attached = tuple(replace(endpoint, state=EndpointState.ATTACHED) for endpoint in endpoints)
        self._context.journal.put_endpoints(attached)
        if container.kind is ContainerKind.CNI:
            self._ports.lend(port for endpoint in attached for port in endpoint.ports)
        self.tell("connect", attached)
        await self._context.names.published(e.id for e in attached)
        return attached

    def _intend(
        self, container: Container, wanted: Sequence[Wanted], inode: int, dormant: dict[str, Endpoint]
    ) -> tuple[Endpoint, ...]:
        """Decide addresses and ports and write them down. Nothing is awaited here, so no two can decide the same."""
        self._check_networks(wanted, dormant.values())
        snapshot = self._context.snapshot()
        endpoints: list[Endpoint] = []
        try:
            for want in wanted:
                identity = dormant[want.interface].id if want.interface in dormant else self._context.new_id()
                endpoints.append(self._decide(snapshot, container, want, EndpointId(identity), inode))
            staying = [e for e in self._context.journal.endpoints_of(container.id) if e.in_kernel]
            endpoints, losing = self._with_ways_out(container, staying, endpoints)
            adopt = {key: value for want in wanted for key, value in self.records_of(want.network).items()}
            rows = (*endpoints, *losing)
            container_row = self._if_changed(container)
            self._context.journal.put_endpoints(rows, container=container_row, adopt=adopt, lasting=False)
        except BaseException:
            self._ports.release(port for endpoint in endpoints for port in endpoint.ports)
            raise
        return tuple(endpoints)

    def _with_ways_out(
        self, container: Container, staying: Sequence[Endpoint], new: Sequence[Endpoint]
    ) -> tuple[list[Endpoint], list[Endpoint]]:
        """Return ``new`` endpoints with the default routes they get, and those of ``staying`` that lose one."""
        chosen = self._choose_ways_out(container, (*staying, *new))
        losing = [replace(e, ways_out=versions) for e, versions in changed_ways_out(staying, chosen)]
        return [replace(endpoint, ways_out=chosen[endpoint.id]) for endpoint in new], losing

    def _choose_ways_out(self, container: Container, rows: Sequence[Endpoint]) -> dict[EndpointId, tuple[int, ...]]:
        # A CNI runtime attaches one by one, and has been told by then where the default route leads.
        in_order = container.kind is ContainerKind.CNI
        return choose_ways_out(rows, self._context.snapshot().networks, in_order=in_order)

    async def _forget(self, endpoints: Sequence[Endpoint]) -> None:
        """Remove the rows of endpoints of one container; its default routes lead through those that it still has."""
        identities = {endpoint.id for endpoint in endpoints}
        moved: list[tuple[Endpoint, Endpoint]] = []
        for container_id in {endpoint.container_id for endpoint in endpoints}:
            container = self._context.journal.containers.get(container_id)
            rows = self._context.journal.endpoints_of(container_id)
            rest = [e for e in rows if e.in_kernel and e.id not in identities]
            if container is not None and rest:
                changed = changed_ways_out(rest, self._choose_ways_out(container, rest))
                moved += [(row, replace(row, ways_out=versions)) for row, versions in changed]
        self._context.journal.remove_endpoints(identities, changed=[after for _, after in moved])
        for before, after in moved:
            try:
                await self._context.engine.change(before, after)
            except NetagentError as error:
                log.error("the default route of container %s is not set yet: %s", after.container_name, error)

    def records_of(self, network: Network) -> dict[str, bytes]:
        """Return what the journal must keep of the store for an endpoint in ``network``: its record and our blocks."""
        access = self._context.stores.of(network)
        wanted = [keys.network_key(network.name)]
        wanted += [keys.block_key(network.id, b.prefix) for b in self._context.snapshot().own_blocks_in(network.id)]
        entries = ((key, access.entry(key)) for key in wanted)
        adopted = self._context.journal.adopted
        return {key: entry.value for key, entry in entries if entry is not None and adopted.get(key) != entry.value}

    def _if_changed(self, container: Container) -> Container | None:
        """Return ``container`` if the journal does not have it so yet; AlreadyExists if another one has its name."""
        known = self._context.journal.containers
        if container.id in known:
            return None if known[container.id] == container else container
        refuse_taken_name(container.name, known.values())
        return container

    def _decide(
        self, snapshot: Snapshot, container: Container, want: Wanted, endpoint_id: EndpointId, inode: int
    ) -> Endpoint:
        fixed = {address.version: EndpointAddress(address=address, fixed=True) for address in want.addresses}
        versions = dict.fromkeys(subnet.prefix.version for subnet in want.network.subnets)
        return Endpoint(
            id=endpoint_id,
            network_id=want.network.id,
            container_id=container.id,
            container_name=container.name,
            interface=want.interface,
            sandbox=container.sandbox,
            sandbox_inode=inode,
            addresses=tuple(fixed.get(v) or self.choose(snapshot, want, v) for v in versions),
            link_local=want.link_local,
            given_routes=want.routes,
            mac=want.mac or derive_mac("endpoint", endpoint_id),
            ports=self._ports.take(want.ports, want.network),
            aliases=want.aliases,
            hostname=container.hostname,
            gw_priority=want.gw_priority,
            rate_in=want.rate_in,
            rate_out=want.rate_out,
        )

    def choose(self, snapshot: Snapshot, want: Wanted, version: int) -> EndpointAddress:
        network = want.network
        ranges = [(first, last) for first, last in want.ranges if first.version == version]
        if ranges:
            resting = self._context.journal.resting(network.id)
            return EndpointAddress(address=choose_in_ranges(snapshot, network, ranges, resting), fixed=True)
        blocks = [b for b in snapshot.own_blocks_in(network.id) if b.prefix.version == version]
        last = self._context.journal.last_address(network.id, version)
        resting = self._context.journal.resting(network.id)
        address = choose_address(network, blocks, snapshot.used_addresses(network.id), last, resting)
        return EndpointAddress(address=address)

    async def claim(self, endpoints: Iterable[Endpoint]) -> None:
        """Claim those fixed addresses that lie outside this host's blocks and are not this endpoint's yet."""
        for endpoint in endpoints:
            snapshot = self._context.snapshot()
            network = snapshot.networks[endpoint.network_id]
            claimed = {c.address for c in snapshot.fixed if c.endpoint_id == endpoint.id}
            for given in endpoint.addresses:
                inside = any(given.address in b.prefix for b in snapshot.own_blocks_in(network.id))
                if given.fixed and not inside and given.address not in claimed:
                    await self._blocks.claim_address(network, given.address, endpoint.id)

    async def _withdraw(
        self, endpoints: Sequence[Endpoint], dormant: dict[str, Endpoint], *, new: Container | None
    ) -> None:
        """Take back a failed attach: kernel, ports, rows, a ``new`` container; a dormant one sleeps on."""
        await self.take_down(endpoints)
        if new is not None:
            # In one transaction with its endpoints: a container without any was disconnected by its user.
            self._context.journal.remove_container(new.id)
            self._context.publish_records()
            await self._context.names.published(e.id for e in endpoints)
            return
        asleep = [dormant[e.interface] for e in endpoints if e.interface in dormant]
        if asleep:
            self._context.journal.put_endpoints(asleep)
        await self._forget([e for e in endpoints if e.interface not in dormant])
        self._context.publish_records()
        await self._context.names.published(e.id for e in endpoints)

    async def add_dormant(self, container: Container, want: Wanted) -> Endpoint:
        """Give a stopped container one more endpoint, for its next start; a fixed address is held from now on."""
        self.check((want,))
        identity = EndpointId(self._context.new_id())
        endpoint = Endpoint(
            id=identity,
            network_id=want.network.id,
            container_id=container.id,
            container_name=container.name,
            interface=want.interface,
            sandbox=container.sandbox,
            addresses=tuple(EndpointAddress(address=address, fixed=True) for address in want.addresses),
            link_local=want.link_local,
            mac=want.mac or derive_mac("endpoint", identity),
            aliases=want.aliases,
            gw_priority=want.gw_priority,
            rate_in=want.rate_in,
            rate_out=want.rate_out,
            state=EndpointState.DORMANT,
        )
        if want.addresses:
            await self._blocks.ensure(want.network, want.addresses)
        self._context.journal.put_endpoints((endpoint,))
        try:
            await self.claim((endpoint,))
        except BaseException:
            self._context.journal.remove_endpoints((endpoint.id,))
            raise
        return endpoint

    async def set_ports(self, endpoint: Endpoint, ports: tuple[PortMapping, ...]) -> Endpoint:
        """Let exactly ``ports`` be published of an endpoint from now on; those that are new must be held already.

        On failure the endpoint is as it was.
        """
        return await self._change(endpoint, replace(endpoint, ports=ports))

    async def set_limits(self, endpoint: Endpoint, rate_in: Rate | None, rate_out: Rate | None) -> Endpoint:
        """Hold an endpoint to these rates from now on; on failure to those that it had."""
        return await self._change(endpoint, replace(endpoint, rate_in=rate_in, rate_out=rate_out))

    async def _change(self, endpoint: Endpoint, changed: Endpoint) -> Endpoint:
        self._context.journal.put_endpoints((changed,))
        if endpoint.in_kernel:
            try:
                await self._context.engine.change(endpoint, changed)
            except BaseException:
                self._context.journal.put_endpoints((endpoint,))
                raise
        self._context.publish_records()
        self._context.names.request((changed.id,))
        return changed

    async def take_down(self, endpoints: Sequence[Endpoint]) -> None:
        """Take endpoints out of the kernel. What it refuses now, the next pass over everything prunes."""
        try:
            await self._context.engine.detach(endpoints)
        except NetagentError as error:
            log.error("an endpoint could not be taken down at once: %s", error)
            self._context.engine.request()
        self._ports.release(port for endpoint in endpoints for port in endpoint.ports)

    async def detach(
        self, endpoints: Sequence[Endpoint], *, keep_fixed: bool = False, container: Container | None = None
    ) -> None:
        """Take endpoints out of the kernel and forget them, and with them the ``container`` if one is given.

        With ``keep_fixed`` they stay in the journal, dormant.
        """
        leaving = tuple(replace(e, state=EndpointState.DETACHING) for e in endpoints if e.in_kernel)
        if leaving:
            self._context.journal.put_endpoints(leaving, lasting=False)
            self._context.names.request(e.id for e in leaving)
            await self.take_down(leaving)
        if keep_fixed:
            asleep = (
                replace(
                    endpoint,
                    state=EndpointState.DORMANT,
                    addresses=tuple(a for a in endpoint.addresses if a.fixed),
                    sandbox_inode=0,
                )
                for endpoint in endpoints
            )
            self._context.journal.put_endpoints(asleep)
        elif container is not None:
            self._context.journal.remove_container(container.id)
        elif endpoints:
            await self._forget(endpoints)
        self.tell("disconnect", leaving)
        if leaving:
            await self._context.names.published(e.id for e in leaving)

    def tell(self, action: str, endpoints: Iterable[Endpoint]) -> None:
        networks = self._context.snapshot().networks
        for endpoint in endpoints:
            network = networks.get(endpoint.network_id)
            self._context.events.publish(
                "network",
                action,
                endpoint.network_id,
                name=network.name if network else endpoint.network_id[:12],
                container=endpoint.container_name,
                addresses=",".join(str(a.address) for a in endpoint.addresses),
            )
        self._context.publish_records()


def _refuse_taken_mac(want: Wanted, snapshot: Snapshot, ours: Iterable[Endpoint]) -> None:
    """Raise Conflict if another interface in the network, here, has the MAC; elsewhere it disturbs nobody."""
    if want.mac is None:
        return
    own = {endpoint.id for endpoint in ours}
    holders = (e for e in snapshot.endpoints_in(want.network.id) if e.mac == want.mac and e.id not in own)
    holder = next(holders, None)
    if holder is not None or want.mac == bridge_mac(want.network.id, snapshot.host.id):
        raise Conflict(
            f"MAC address {want.mac} is already in use in network {want.network.name}"
            f" by {f'container {holder.container_name}' if holder else 'its gateway'}",
            hint="choose another --mac-address, or leave it out",
        )


def refuse_taken_name(name: str, containers: Iterable[Container]) -> None:
    """Raise AlreadyExists, in Docker's words, if one of ``containers`` is called ``name``."""
    holder = next((c for c in containers if c.name == name), None)
    if holder is not None:
        verb = "rm" if holder.kind is ContainerKind.RUN else "detach"
        raise AlreadyExists(
            f'Conflict. The container name "{name}" is already in use by container "{short(holder.id)}"',
            hint=f"netagent {verb} {name}, or choose another --name",
        )
