"""Networks: created by one transaction that no overlapping create can pass beside, removed in steps every host takes.

A network goes by its ``deleting`` record: each host that holds blocks takes its part out of the kernel and gives the
blocks back (``services/publisher.py``), and the record goes last, under the guard that no block is left.
"""

import asyncio
import builtins
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from types import MappingProxyType

from netagent.drivers import driver_named
from netagent.errors import AlreadyExists, Conflict, InvalidRequest, NetagentError, Unavailable
from netagent.ipam.allocate import block_around
from netagent.ipam.pools import choose_ipv6_subnet, choose_subnet, refuse_foreign_routes, refuse_overlap
from netagent.ipam.usage import SubnetUsage, count_usage
from netagent.model.address import is_inside
from netagent.model.block import Block
from netagent.model.endpoint import Endpoint
from netagent.model.host import Host, HostFacts, HostRoute
from netagent.model.ids import NetworkId, parse_name, short
from netagent.model.label import parse_labels
from netagent.model.network import PREDEFINED, GoneNetwork, Network, NetworkState, Scope, Subnet
from netagent.plan.render import network_mtu
from netagent.reconcile.ports import Absent, AbsentBelow, Delete, Guard, Put, Unchanged, Write
from netagent.services.blocks import refuse_unreachable_peers
from netagent.services.context import Context
from netagent.services.existing_bridge import subnets_of_bridge, without_bridge
from netagent.services.names import find_by_name, natural_key
from netagent.services.network_change import change_network
from netagent.services.network_options import check_families, parse_options, parse_subnets
from netagent.services.requests import NetworkChange, NetworkView, NewNetwork
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.host_records import encode_gone
from netagent.store.network_records import check_network, encode_network

log = logging.getLogger("netagent.networks")

FIRST_VNI = 4097
"""Where automatic VNIs begin: those below are what people give by hand."""

LAST_VNI = (1 << 24) - 1
ATTEMPTS = 50
CLAIMS_AT_ONCE = 100
REMOVE_PATIENCE_S = 20.0
"""How long a removal waits for the other hosts before it says which ones did not answer."""


class NetworkService:
    """The networks that this host knows."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._taken: dict[str, builtins.list[str]] = {}

    # Looking

    def list(self) -> list[Network]:
        """Return all networks, sorted by name, net2 before net10."""
        return sorted(self._context.snapshot().networks.values(), key=lambda network: natural_key(network.name))

    def usage(self) -> Counter[NetworkId]:
        """Return how many containers are connected to each network, on all hosts."""
        users = Counter(e.network_id for e in self._context.snapshot().endpoints.values() if e.in_kernel)
        for access in self._context.stores.all:
            for endpoints in access.view.remote_endpoints.values():
                users.update(e.network_id for e in endpoints if e.in_kernel)
        return users

    def find(self, name: str) -> Network:
        """Return the network that ``name`` means; NotFound in Docker's words."""
        return find_by_name(
            name,
            self._context.snapshot().networks.values(),
            what="network",
            missing=f"network {name} not found",
            hint="netagent network ls shows those there are",
        )

    def find_for_endpoint(self, name: str) -> Network:
        """Return the network that ``name`` means, for a container to be connected to."""
        network = self.find(name)
        if not network.has_endpoints:
            raise InvalidRequest(
                f"network {network.name} gives no interface", hint=f"netagent run --network {network.name}"
            )
        return network

    def find_for_endpoints(self, names: Iterable[str]) -> builtins.list[Network]:
        """Return the networks that ``names`` mean, for one container to be connected to; each may be named once."""
        networks = [self.find_for_endpoint(name) for name in names]
        if len({network.id for network in networks}) < len(networks):
            raise InvalidRequest("the same network is given twice", hint="name each --network once")
        return networks

    def view(self, name: str) -> NetworkView:
        """Return a network with its endpoints on all hosts and the blocks they hold."""
        network = self.find(name)
        snapshot = self._context.snapshot()
        endpoints = self._endpoints_of(network)
        used = Counter(
            block_around(subnet, given.address)
            for endpoint, _ in endpoints
            for given in endpoint.addresses
            if (subnet := network.subnet_of(given.address)) is not None
        )
        return NetworkView(
            network=network,
            endpoints=tuple(endpoints),
            blocks=tuple(
                (block, self._host(block), used[block.prefix])
                for block in sorted(snapshot.blocks_in(network.id), key=lambda b: (b.prefix.version, b.prefix))
            ),
            effective_mtu=network_mtu(network, snapshot) if network.has_endpoints else 0,
            usage=self._usage(network, (e for e, _ in endpoints)),
        )

    def _usage(self, network: Network, endpoints: Iterable[Endpoint]) -> tuple[SubnetUsage, ...]:
        snapshot = self._context.snapshot()
        held = {given.address for endpoint in endpoints for given in endpoint.addresses}
        held |= snapshot.used_addresses(network.id)
        held |= {claim.address for claim in snapshot.fixed if claim.network_id == network.id}
        held |= {b.own_address for b in snapshot.blocks_in(network.id) if b.own_address is not None}
        return tuple(count_usage(subnet, held) for subnet in network.subnets)

    def _host(self, block: Block) -> Host | None:
        own = self._context.host
        return own if block.owner == own.id else self._context.snapshot().hosts.get(block.owner)

    def _endpoints_of(self, network: Network) -> builtins.list[tuple[Endpoint, Host]]:
        snapshot = self._context.snapshot()
        found = [(e, snapshot.host) for e in snapshot.endpoints_in(network.id) if e.in_kernel]
        for host_id, endpoints in self._context.stores.of(network).view.remote_endpoints.items():
            host = snapshot.hosts.get(host_id)
            if host is not None:
                found += [(e, host) for e in endpoints if e.network_id == network.id and e.in_kernel]
        return sorted(found, key=lambda pair: natural_key(pair[0].container_name))

    # Creating

    async def create(self, request: NewNetwork) -> Network:
        """Create a network; everything that cannot work is refused before anything changes."""
        name = parse_name(request.name, what="network")
        if name in PREDEFINED:
            raise InvalidRequest(f"operation is not permitted on predefined {name} network", hint="choose another name")
        driver = driver_named(request.driver)
        options = parse_options(request.options, driver.name, ipv6=_has_ipv6(request))
        facts = await self._context.kernel.facts()
        access = self._context.stores.for_scope(driver.scope)
        for _ in range(ATTEMPTS):
            self._refuse_taken(name)
            identity = NetworkId(self._context.new_id())
            network = Network(
                id=identity,
                name=name,
                driver=driver.name,
                scope=driver.scope,
                subnets=self._choose_subnets(request, options.bridge, driver.scope, facts, identity),
                vni=self._choose_vni(access) if driver.needs_number else None,
                internal=request.internal,
                mtu=options.mtu or (facts.interfaces[options.bridge][0] if options.bridge else None),
                bridge=options.bridge,
                icc=options.icc,
                interface_prefix=options.interface_prefix,
                masquerade=options.masquerade,
                masquerade_except=options.masquerade_except,
                outbound=options.outbound,
                underlay=options.underlay or self._underlay_version(),
                direct_routing=options.direct_routing,
                fallback=options.fallback,
                host_bindings=options.host_bindings,
                overlaps=request.force,
                backend=options.backend,
                options=MappingProxyType(dict(request.options)),
                labels=MappingProxyType(dict(parse_labels(request.labels))),
                created=self._context.now(),
            )
            check_network(network)
            if await access.commit(create_guards(access, network), create_writes(network)):
                self._context.events.publish("network", "create", network.id, name=name, driver=driver.name)
                return network
        raise Unavailable(f"network {name} could not be created: others change networks all the time", hint="try again")

    def _underlay_version(self) -> int:
        """Return the IP version of the address that this host calls its own among hosts."""
        underlay = self._context.host.underlay
        return underlay[0].version if underlay else 4

    def _refuse_taken(self, name: str) -> None:
        if any(network.name == name for network in self._context.snapshot().networks.values()):
            raise AlreadyExists(f"network with name {name} already exists", hint=f"netagent network inspect {name}")

    def _choose_subnets(
        self, request: NewNetwork, bridge: str | None, scope: Scope, facts: HostFacts, seed: str
    ) -> tuple[Subnet, ...]:
        """Return the subnets asked for, or one that is free; those that overlap anything are refused."""
        networks = tuple(self._context.snapshot().networks.values())
        if bridge is None:
            subnets = parse_subnets(request, scope)
        else:
            subnets = subnets_of_bridge(request, bridge, facts, networks)
            facts = without_bridge(facts, bridge)
        check_families(request, subnets)
        if request.force:
            refuse_overlap(subnets, networks, replace(facts, routes=(), interfaces={}))
        else:
            refuse_overlap(subnets, networks, facts)
            refuse_foreign_routes(subnets, self._others(scope))
        self._refuse_underlays(subnets)
        if bridge is not None:
            return subnets
        routed = tuple(HostRoute(prefix=p, device="") for host in self._others(scope) for p in host.routes)
        facts = replace(facts, routes=facts.routes + routed)
        pools = self._context.pools if scope is Scope.LOCAL else ()
        versions = {subnet.prefix.version for subnet in subnets}
        if 4 not in versions and (request.ipv4 or (request.ipv4 is None and not subnets)):
            subnets = (choose_subnet(scope, networks, facts, pools, block_length=request.host_prefix), *subnets)
        if request.ipv6 and 6 not in versions:
            subnets = (*subnets, choose_ipv6_subnet(seed, scope, networks, facts, pools))
        return subnets

    def _others(self, scope: Scope) -> tuple[Host, ...]:
        """Return the hosts, beside this one, that may get a network of ``scope``."""
        own = self._context.host.id
        return tuple(h for h in self._context.snapshot().hosts.values() if h.id != own and scope is Scope.GLOBAL)

    def _refuse_underlays(self, subnets: tuple[Subnet, ...]) -> None:
        """Raise Conflict for a subnet that holds an address by which a host reaches the others."""
        for host in self._context.snapshot().hosts.values():
            inside = next((a for a in host.underlay for s in subnets if a in s.prefix), None)
            if inside is not None:
                raise Conflict(
                    f"the subnet holds the address {inside} of host {host.name}",
                    hint="choose another --subnet, or leave it out to get a free one",
                )

    def _choose_vni(self, access: StoreAccess) -> int:
        taken = {key.removeprefix(keys.NUMBERS) for key in access.mirror.entries if key.startswith(keys.NUMBERS)}
        taken |= {str(network.vni) for network in self._context.snapshot().networks.values()}
        return next(vni for vni in range(FIRST_VNI, LAST_VNI) if str(vni) not in taken)

    # Changing

    async def update(self, change: NetworkChange) -> Network:
        """Change labels, options and subnets of a network; this host follows at once, the others with the record.

        Containers get addresses of a further family when they are connected the next time.
        """
        network = self.find(change.name)
        if not network.has_endpoints:
            raise InvalidRequest(f"operation is not permitted on predefined {network.name} network")
        access = self._context.stores.of(network)
        facts = await self._context.kernel.facts()
        for _ in range(ATTEMPTS):
            network = self.find(network.id)
            if network.state is NetworkState.DELETING:
                raise Conflict(f"network {network.name} is being deleted", hint="wait until it is gone")
            snapshot = self._context.snapshot()
            changed = change_network(
                network,
                change,
                networks=snapshot.networks.values(),
                facts=facts,
                endpoints=snapshot.endpoints_in(network.id),
            )
            added = tuple(subnet for subnet in changed.subnets if subnet not in network.subnets)
            self._refuse_underlays(added)
            if not network.overlaps:
                refuse_foreign_routes(added, self._others(network.scope))
            if changed.moves != network.moves:
                refuse_unreachable_peers(snapshot, changed)
            check_network(changed)
            if await access.commit(*self._update_transaction(access, network, changed)):
                await self._follow(network)
                return changed
        raise Unavailable(f"network {network.name} is changed by others all the time", hint="try again")

    def _update_transaction(
        self, access: StoreAccess, network: Network, changed: Network
    ) -> tuple[builtins.list[Guard], builtins.list[Write]]:
        """Return what must hold for a change, and what it writes. Other subnets need what a create needs."""
        key = keys.network_key(network.name)
        entry = access.entry(key)
        guards: builtins.list[Guard] = [access.unchanged(key)]
        writes: builtins.list[Write] = [Put(key=key, value=encode_network(changed, entry.value if entry else None))]
        if changed.subnets != network.subnets:
            guards.append(_generation_guard(access))
            writes.append(Put(key=keys.GENERATION, value=network.id.encode()))
        kept = {subnet.prefix for subnet in changed.subnets}
        gone = [subnet.prefix for subnet in network.subnets if subnet.prefix not in kept]
        own = (block.prefix for block in self._context.snapshot().own_blocks_in(network.id))
        writes.extend(
            Delete(key=keys.block_key(network.id, block)) for block in own if any(is_inside(block, p) for p in gone)
        )
        return guards, writes

    async def _follow(self, network: Network) -> None:
        """Bring the kernel after a changed record. What it refuses is tried again, and shown by ``netagent info``."""
        self._context.events.publish("network", "update", network.id, name=network.name)
        try:
            await self._context.engine.reconcile()
        except NetagentError as error:
            log.error("network %s could not be changed at once: %s", network.name, error)
            self._context.engine.request()

    # Removing

    async def remove(
        self, name: str, *, force: bool = False, unless: Callable[[Network], bool] = lambda network: False
    ) -> AsyncIterator[tuple[str, ...]]:
        """Remove a network; yield the names of the hosts that still hold blocks of it, until none does.

        With ``force`` the blocks of hosts that are not live are taken from them: they learn of it when they return.
        Conflict if ``unless`` holds for the record that would be marked.
        """
        network = self.find(name)
        if network.is_predefined:
            raise Conflict(f"{network.name} is a pre-defined network and cannot be removed")
        self._refuse_in_use(network, force=force)
        access = self._context.stores.of(network)
        await self._mark_deleting(access, network, unless)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REMOVE_PATIENCE_S
        while waiting := self._holders(network):
            if force:
                await self._take_from_dead(access, network)
            yield tuple(sorted(waiting.values()))
            if loop.time() > deadline:
                raise Unavailable(
                    f"network {network.name} is being deleted, but {', '.join(sorted(waiting.values()))} did not"
                    " give its blocks back",
                    hint=f"start the agent there, or netagent network rm -f {network.name} if the host is gone",
                )
            await access.mirror.wait_until(lambda: self._holders(network) != waiting, within=1.0)
        while network.id in self._context.snapshot().networks:
            if loop.time() > deadline:
                raise Unavailable(
                    f"the record of network {network.name} is not gone", hint=f"netagent network rm {network.name}"
                )
            await finish_removal(access, network)
            await access.mirror.wait_until(lambda: network.id not in self._context.snapshot().networks, within=0.5)
        self._taken[name] = self.ignorant_of(network.id)
        self._context.journal.forget_network(network.id)
        self._context.events.publish("network", "destroy", network.id, name=network.name)

    def _refuse_in_use(self, network: Network, *, force: bool) -> None:
        """Refuse while containers are connected; with ``force`` those of hosts that are not live do not count."""
        live = self._context.snapshot().live | {self._context.host.id}
        connected = [e for e, host in self._endpoints_of(network) if host.id in live or not force]
        users = [f'name:"{e.container_name}" id:"{short(e.container_id)}"' for e in connected]
        if users:
            raise Conflict(
                f"error while removing network: network {network.name} has active endpoints ({', '.join(users)})",
                hint="remove or detach these containers first",
            )

    async def _mark_deleting(self, access: StoreAccess, network: Network, unless: Callable[[Network], bool]) -> None:
        key = keys.network_key(network.name)
        for _ in range(ATTEMPTS):
            entry = access.entry(key)
            if entry is None:
                return
            if unless(network):
                raise Conflict(f"network {network.name} is in use again", hint="remove it where it is used first")
            record = encode_network(replace(network, state=NetworkState.DELETING), entry.value)
            writes = (Put(key=key, value=record), Put(key=keys.GENERATION, value=network.id.encode()))
            if await access.commit((access.unchanged(key),), writes):
                return
            network = self.find(network.id)
        raise Unavailable(f"network {network.name} is changed by others all the time", hint="try again")

    def _holders(self, network: Network) -> dict[str, str]:
        blocks = self._context.snapshot().blocks_in(network.id)
        return {b.owner: host.name if (host := self._host(b)) else b.owner for b in blocks}

    async def _take_from_dead(self, access: StoreAccess, network: Network) -> None:
        snapshot = self._context.snapshot()
        await self._leave_word(access, network)
        for block in snapshot.blocks_in(network.id):
            if block.owner not in snapshot.live and block.owner != snapshot.host.id:
                key = keys.block_key(network.id, block.prefix)
                await access.commit((access.unchanged(key),), (Delete(key=key),))
                published = f"{keys.own_endpoints_prefix(block.owner)}{network.id}/"
                for record in [record for record in access.mirror.entries if record.startswith(published)]:
                    await access.commit((), (Delete(key=record),))

    def taken_from(self, name: str) -> builtins.list[str]:
        """Return from whom the network was taken that was just removed as ``name``; ask once, after ``remove``."""
        return self._taken.pop(name, [])

    def ignorant_of(self, network_id: NetworkId) -> builtins.list[str]:
        """Return the names of the hosts that had part in a removed network and do not know yet that it is gone."""
        gone = self._context.stores.cluster.view.gone.get(network_id)
        hosts = self._context.snapshot().hosts
        return sorted(host.name if (host := hosts.get(i)) else str(i) for i in (gone.hosts if gone else ()))

    async def _leave_word(self, access: StoreAccess, network: Network) -> None:
        """Write down which hosts are away and have part in a network, so that they learn of its end one day."""
        snapshot = self._context.snapshot()
        parts = {b.owner for b in snapshot.blocks_in(network.id)} | {h.id for _, h in self._endpoints_of(network)}
        absent = parts - snapshot.live - {snapshot.host.id}
        key = keys.gone_key(network.id)
        while True:
            entry = access.entry(key)
            known = set(access.view.gone[network.id].hosts) if network.id in access.view.gone else set()
            if absent <= known:
                return
            gone = GoneNetwork(id=network.id, name=network.name, hosts=tuple(sorted(absent | known)))
            guard = Absent(key=key) if entry is None else Unchanged(key=key, revision=entry.revision)
            if await access.commit((guard,), (Put(key=key, value=encode_gone(gone)),)):
                names = self.ignorant_of(network.id)
                log.warning("network %s is taken from hosts that do not answer: %s", network.name, ", ".join(names))
                self._context.events.publish("network", "take", network.id, name=network.name, hosts=",".join(names))


async def finish_removal(access: StoreAccess, network: Network) -> bool:
    """Remove the records of a network that is being deleted, if no host holds a block of it any more."""
    key = keys.network_key(network.name)
    if access.entry(key) is None:
        return True
    guards = (access.unchanged(key), AbsentBelow(prefix=keys.blocks_prefix(network.id)))
    prefix = f"{keys.ADDRESSES}{network.id}/"
    claims = [claim for claim in access.mirror.entries if claim.startswith(prefix)]
    # One transaction takes a hundred or so; no new claim can come while the record says "deleting".
    for start in range(0, len(claims), CLAIMS_AT_ONCE):
        if not await access.commit(guards, [Delete(key=c) for c in claims[start : start + CLAIMS_AT_ONCE]]):
            return False
    writes: list[Write] = [Delete(key=key), Put(key=keys.GENERATION, value=network.id.encode())]
    if network.vni is not None:
        writes.append(Delete(key=keys.number_key(network.vni)))
    return await access.commit(guards, writes)


def create_guards(access: StoreAccess, network: Network) -> list[Guard]:
    """Return what must hold for a create: the name and number are free, and no network has changed meanwhile."""
    guards: list[Guard] = [Absent(key=keys.network_key(network.name))]
    guards.append(_generation_guard(access))
    if network.vni is not None:
        guards.append(Absent(key=keys.number_key(network.vni)))
    return guards


def _generation_guard(access: StoreAccess) -> Guard:
    has_generation = access.entry(keys.GENERATION) is not None
    return access.unchanged(keys.GENERATION) if has_generation else Absent(key=keys.GENERATION)


def create_writes(network: Network) -> list[Write]:
    """Return what a create writes."""
    writes: list[Write] = [
        Put(key=keys.network_key(network.name), value=encode_network(network)),
        Put(key=keys.GENERATION, value=network.id.encode()),
    ]
    if network.vni is not None:
        writes.append(Put(key=keys.number_key(network.vni), value=network.id.encode()))
    return writes


def _has_ipv6(request: NewNetwork) -> bool:
    return request.ipv6 or any(":" in subnet for subnet in request.subnets)
