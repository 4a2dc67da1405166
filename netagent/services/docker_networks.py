"""Docker's networks: address pools that dockerd holds, and networks of its that stand for netagent's.

dockerd asks for pools first, then for gateway and auxiliary addresses out of them, and last for the network; it tells
no names. ``-o network=NAME`` names the network that is meant, which is made if it does not exist; without it the one
that has the same subnets is meant, so that daemons of several hosts find each other, and else a new one is made.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from netagent.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, Unavailable
from netagent.ipam.pools import choose_ipv6_subnet, choose_subnet, parse_subnet, refuse_overlap
from netagent.model.address import Address, is_inside, parse_address, parse_prefix
from netagent.model.docker import DockerNetwork, DockerPool
from netagent.model.ids import NetworkId, short
from netagent.model.network import Network, NetworkState, Scope, Subnet
from netagent.runtime.dockerd import Dockerd
from netagent.services.context import Context
from netagent.services.docker_shares import ORIGIN_LABEL, DockerShares
from netagent.services.locks import Locks
from netagent.services.network_removal import NetworkRemovalService
from netagent.services.networks import ATTEMPTS, NetworkService
from netagent.services.requests import NewNetwork

log = logging.getLogger("netagent.docker")

ADDRESS_SPACE = "netagent"
"""What Docker calls the source of our pools."""

DEFAULT_DRIVER = "vxlan"
"""What ``-o driver`` stands for if it is not given."""


ASK_S = 3.0
"""How long dockerd may take to say whether it has a network, while it waits for us itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDockerNetwork:
    """A network as dockerd asks for it. ``subnets`` are pairs of subnet and gateway, empty if there is none."""

    id: str
    digest: str
    subnets: tuple[tuple[str, str], ...]
    aux_addresses: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    internal: bool = False
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class DockerNetworks:
    """The pools and networks of this host's dockerd."""

    def __init__(
        self, context: Context, networks: NetworkService, removal: NetworkRemovalService, dockerd: Dockerd
    ) -> None:
        self._context = context
        self._networks = networks
        self._dockerd = dockerd
        self._shares = DockerShares(context, removal)
        self._book = context.journal.docker
        self._locks = Locks()

    # Pools

    async def request_pool(self, subnet: str, ip_range: str, options: Mapping[str, str], *, ipv6: bool) -> DockerPool:
        """Give Docker a pool: the one it names, that of the network in ``options``, or a free one."""
        async with self._locks.held("pools"):
            named = options.get("network")
            if named:
                subnet = self._subnet_of_named(named, subnet, ipv6=ipv6)
            if not subnet:
                if ip_range:
                    raise InvalidRequest("--ip-range needs --subnet")
                subnet = await self._choose_subnet(ipv6=ipv6)
            prefix = parse_prefix(subnet)
            identity = f"{prefix} {parse_prefix(ip_range)}" if ip_range else str(prefix)
            known = self._book.pools.get(identity)
            if known is not None:
                pool = replace(known, users=known.users + 1)
            else:
                pool = DockerPool(id=identity, subnet=str(prefix), ip_range=ip_range)
                await self._check_pool(pool)
            self._book.put_pool(pool)
            return pool

    def _subnet_of_named(self, name: str, subnet: str, *, ipv6: bool) -> str:
        network = self._networks.find(name)
        version = 6 if ipv6 else 4
        found = next((str(s.prefix) for s in network.subnets if s.prefix.version == version), None)
        if found is None:
            raise InvalidRequest(f"network {network.name} has no IPv{version} subnet")
        if subnet and parse_prefix(subnet) != parse_prefix(found):
            raise InvalidRequest(f"network {network.name} has the subnet {found}, not {subnet}")
        return found

    async def _choose_subnet(self, *, ipv6: bool) -> str:
        """Return a free subnet. Docker holds those that do not suit it and asks again, so no pool is given twice."""
        held = tuple(self._as_network(pool) for pool in self._book.pools.values())
        networks = (*self._context.snapshot().networks.values(), *held)
        facts = await self._context.kernel.facts()
        if ipv6:
            chosen = choose_ipv6_subnet(self._context.new_id(), Scope.GLOBAL, networks, facts)
        else:
            chosen = choose_subnet(Scope.GLOBAL, networks, facts)
        return str(chosen.prefix)

    def _as_network(self, pool: DockerPool) -> Network:
        subnet = parse_subnet(pool.subnet, scope=Scope.GLOBAL)
        return Network(id=NetworkId(""), name="of Docker", driver=DEFAULT_DRIVER, scope=Scope.GLOBAL, subnets=(subnet,))

    async def _check_pool(self, pool: DockerPool) -> None:
        """Refuse a pool of which no network could be made."""
        subnet = parse_subnet(pool.subnet, scope=Scope.GLOBAL, ip_range=pool.ip_range or None)
        joined = self._subnet_like(pool)
        if joined is None:
            networks = self._context.snapshot().networks.values()
            refuse_overlap((subnet,), networks, await self._context.kernel.facts())
        elif pool.ip_range and not is_inside(parse_prefix(pool.ip_range), joined.pool):
            raise Conflict(
                f"the ip-range {pool.ip_range} is not that of the network with the subnet {pool.subnet}",
                hint="leave --ip-range out",
            )

    def _subnet_like(self, pool: DockerPool) -> Subnet | None:
        """Return the subnet of an existing network that a pool is, or None."""
        prefix = parse_prefix(pool.subnet)
        networks = self._context.snapshot().networks.values()
        return next((s for network in networks for s in network.subnets if s.prefix == prefix), None)

    async def release_pool(self, identity: str) -> None:
        """Take a pool back, once from each user; one that is not held is no error."""
        async with self._locks.held("pools"):
            pool = self._book.pools.get(identity)
            if pool is not None and pool.users > 1:
                self._book.put_pool(replace(pool, users=pool.users - 1))
            elif pool is not None:
                self._book.remove_pool(identity)

    def reserve_own(self, pool: DockerPool, address: str, *, is_gateway: bool) -> str:
        """Return what a network gets that is not there yet: its gateway or an auxiliary address, as a CIDR."""
        prefix = parse_prefix(pool.subnet)
        joined = self._subnet_like(pool)
        asked = parse_address(address) if address else None
        if asked is None and not is_gateway:
            raise InvalidRequest(
                f"pool {pool.subnet} is not that of a network of the driver netagent",
                hint="use --driver netagent and --ipam-driver netagent together",
            )
        if joined is not None:
            _refuse_other_setting(joined, asked, is_gateway=is_gateway)
        subnet = joined or parse_subnet(
            pool.subnet, scope=Scope.GLOBAL, gateway=address if is_gateway and address else None
        )
        chosen: Address = asked or subnet.gateway
        if chosen not in prefix:
            raise InvalidRequest(f"address {chosen} is not in {prefix}")
        return f"{chosen}/{prefix.prefixlen}"

    # Networks

    def find(self, identity: str) -> Network:
        """Return the network that one of Docker's stands for."""
        known = self._book.networks.get(identity)
        if known is None:
            raise NotFound(
                f"network {short(identity)} is not known to netagent", hint="docker network rm, and create it anew"
            )
        network = self._context.snapshot().networks.get(known.network_id)
        if network is None:
            raise NotFound(
                f"network {short(identity)} was removed from netagent", hint="docker network rm, and create it anew"
            )
        return network

    def network_of_pool(self, pool: DockerPool) -> Network | None:
        """Return the network of this host's dockerd that has its addresses from a pool, or None."""
        known = next((n for n in self._book.networks.values() if pool.subnet in n.subnets), None)
        return self.find(known.id) if known is not None else None

    def pool(self, identity: str) -> DockerPool:
        """Return the pool that Docker calls so."""
        pool = self._book.pools.get(identity)
        if pool is None:
            raise NotFound(f"address pool {identity} is not held")
        return pool

    async def create(self, request: NewDockerNetwork) -> Network:
        """Make or join the network that Docker asks for; the same request again changes nothing."""
        async with self._locks.held(request.id):
            known = self._book.networks.get(request.id)
            if known is not None:
                if known.digest != request.digest:
                    raise AlreadyExists(f"network {short(request.id)} exists already, with other settings")
                return self.find(request.id)
            network = await self._find_or_make(request)
            self._book.put_network(
                DockerNetwork(
                    id=request.id,
                    network_id=network.id,
                    digest=request.digest,
                    subnets=tuple(str(parse_prefix(subnet)) for subnet, _ in request.subnets),
                )
            )
            log.info("Docker's network %s is %s", short(request.id), network.name)
            return network

    async def _find_or_make(self, request: NewDockerNetwork) -> Network:
        if not request.subnets:
            raise InvalidRequest("a network needs a subnet", hint="use --ipam-driver netagent")
        for _ in range(ATTEMPTS):
            found = self._find_meant(request)
            if found is not None and found.state is NetworkState.DELETING:
                await self._shares.gone(found)
                continue
            if found is not None:
                self._check_joined(found, request)
                await self._replace_lost(found)
                if await self._shares.join(found):
                    return found
                continue  # Its last user was removing it.
            try:
                return await self._networks.create(self._as_new_network(request))
            except AlreadyExists:
                continue  # Another host's dockerd was quicker.
            except Conflict:
                if self._find_meant(request) is None:
                    raise
        raise Unavailable("others create the same network all the time", hint="try again")

    def _find_meant(self, request: NewDockerNetwork) -> Network | None:
        networks = self._context.snapshot().networks.values()
        name = request.options.get("network")
        if name:
            return next((n for n in networks if n.name == name), None)
        wanted = {parse_prefix(subnet) for subnet, _ in request.subnets}
        return next((n for n in networks if wanted & {s.prefix for s in n.subnets}), None)

    def _check_joined(self, network: Network, request: NewDockerNetwork) -> None:
        """Refuse to take a network for another than it is."""
        if network.is_predefined or network.bridge is not None:
            raise Conflict(f"network {network.name} cannot be used by Docker", hint="create another one")
        by_prefix = {subnet.prefix: subnet for subnet in network.subnets}
        for text, gateway in request.subnets:
            subnet = by_prefix.get(parse_prefix(text))
            if subnet is None:
                raise Conflict(
                    f"network {network.name} has {', '.join(map(str, by_prefix))}, not {text}",
                    hint=f"use --ipam-opt network={network.name} beside -o network={network.name}",
                )
            if gateway:
                _refuse_other_setting(subnet, parse_address(gateway.partition("/")[0]), is_gateway=True)
        driver = request.options.get("driver")
        if driver and driver != network.driver:
            raise Conflict(
                f"network {network.name} has the driver {network.driver}, not {driver}", hint="leave -o driver out"
            )
        if request.internal != network.internal:
            raise Conflict(
                f"network {network.name} is {'' if network.internal else 'not '}internal",
                hint="use --internal as it has",
            )

    async def _replace_lost(self, network: Network) -> None:
        """Refuse a network that this dockerd has already, unless it has lost it together with its state."""
        for known in [known for known in self._book.networks.values() if known.network_id == network.id]:
            try:
                async with asyncio.timeout(ASK_S):
                    is_lost = await self._dockerd.has_lost(known)
            except (Unavailable, NotFound, TimeoutError):
                is_lost = False
            if not is_lost:
                raise Conflict(
                    f"network {network.name} is used by another network of this dockerd", hint="use that one"
                )
            log.warning("dockerd has lost its network %s, which was %s", short(known.id), network.name)
            self._book.remove_network(known.id)
            for pool in [pool for pool in self._book.pools.values() if pool.subnet in known.subnets]:
                self._book.put_pool(replace(pool, users=1))

    def _as_new_network(self, request: NewDockerNetwork) -> NewNetwork:
        options = dict(request.options)
        name = options.pop("network", "") or f"docker-{short(request.id)}"
        driver = options.pop("driver", DEFAULT_DRIVER)
        host_prefix = options.pop("host-prefix", "")
        if host_prefix and not host_prefix.isdecimal():
            raise InvalidRequest(f"invalid option host-prefix {host_prefix}", hint="use a prefix length, e.g. 24")
        subnets = tuple(subnet for subnet, _ in request.subnets)
        ranges = {pool.subnet: pool.ip_range for pool in self._book.pools.values() if pool.ip_range}
        return NewNetwork(
            name=name,
            driver=driver,
            subnets=subnets,
            gateways=tuple(gateway.partition("/")[0] for _, gateway in request.subnets if gateway),
            ip_ranges=tuple(ranges[s] for s in subnets if s in ranges),
            aux_addresses=request.aux_addresses,
            host_prefix=int(host_prefix) if host_prefix else None,
            internal=request.internal,
            ipv6=any(":" in subnet for subnet in subnets),
            ipv4=None if any("." in subnet for subnet in subnets) else False,
            options=options,
            labels={ORIGIN_LABEL: self._context.host.id},
        )

    async def delete(self, identity: str) -> None:
        """Forget a network of Docker's, and remove what Docker made for it; one that is not known is no error."""
        async with self._locks.held(identity):
            known = self._book.networks.get(identity)
            if known is None:
                return
            network = self._context.snapshot().networks.get(known.network_id)
            if network is not None:
                users = [
                    e
                    for e in self._context.snapshot().endpoints_in(network.id)
                    if not e.sandbox and e.interface.startswith("nac")
                ]
                if users:
                    raise Conflict(f"network {network.name} has active endpoints", hint="remove its containers first")
            self._book.remove_network(identity)
            if network is not None and ORIGIN_LABEL in network.labels:
                await self._shares.leave(network)


def _refuse_other_setting(subnet: Subnet, asked: Address | None, *, is_gateway: bool) -> None:
    """Raise Conflict if the network that has ``subnet`` already has another gateway or auxiliary address there."""
    if asked is None:
        return
    if is_gateway and asked != subnet.gateway:
        raise Conflict(
            f"the network with the subnet {subnet.prefix} has the gateway {subnet.gateway}, not {asked}",
            hint="leave --gateway out",
        )
    if not is_gateway and not subnet.is_taken(asked):
        raise Conflict(
            f"{asked} is no auxiliary address of the network with the subnet {subnet.prefix}",
            hint="leave --aux-address out, or give it on the host where the network is made first",
        )
