"""Networks: looked up, created by one transaction that no overlapping create can pass beside, and changed."""

import builtins
import logging
from collections import Counter
from collections.abc import Iterable
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
from netagent.model.given_route import parse_given_routes
from netagent.model.host import Host, HostFacts, HostRoute
from netagent.model.ids import NetworkId, parse_name
from netagent.model.label import parse_labels
from netagent.model.network import PREDEFINED, Network, NetworkState, Scope, Subnet
from netagent.plan.render import network_mtu
from netagent.reconcile.ports import Delete, Guard, Put, Write
from netagent.services.blocks import refuse_unreachable_peers
from netagent.services.context import Context
from netagent.services.existing_bridge import subnets_of_bridge, without_bridge
from netagent.services.names import find_by_name, natural_key
from netagent.services.network_change import change_network
from netagent.services.network_numbers import free_number
from netagent.services.network_options import check_families, parse_options, parse_subnets
from netagent.services.network_transactions import create_guards, create_writes, generation_guard
from netagent.services.requests import NetworkChange, NetworkView, NewNetwork
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.network_records import check_network, encode_network

log = logging.getLogger("netagent.networks")

ATTEMPTS = 50


class NetworkService:
    """The networks that this host knows."""

    def __init__(self, context: Context) -> None:
        self._context = context

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
        endpoints = self.endpoints_of(network)
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
                (block, self.holder(block), used[block.prefix])
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

    def holder(self, block: Block) -> Host | None:
        """Return the host that holds a block, if it is known."""
        own = self._context.host
        return own if block.owner == own.id else self._context.snapshot().hosts.get(block.owner)

    def endpoints_of(self, network: Network) -> builtins.list[tuple[Endpoint, Host]]:
        """Return what is connected to a network, on all hosts, each with its host."""
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
                routed=options.routed,
                unprotected=options.unprotected,
                trusted=options.trusted,
                default_route=options.default_route,
                routes=options.routes,
                nameservers=options.nameservers,
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
            parse_given_routes(network.routes, network)
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
        taken = {key for key in access.mirror.entries if key.startswith(keys.NUMBERS)}
        known = self._context.snapshot().networks.values()
        return free_number(taken | {keys.number_key(network.vni) for network in known if network.vni is not None})

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
            if not changed.overlaps:
                refuse_foreign_routes(added, self._others(network.scope))
            if changed.moves != network.moves:
                refuse_unreachable_peers(snapshot, changed)
            check_network(changed)
            parse_given_routes(changed.routes, changed)
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
            guards.append(generation_guard(access))
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


def _has_ipv6(request: NewNetwork) -> bool:
    return request.ipv6 or any(":" in subnet for subnet in request.subnets)
