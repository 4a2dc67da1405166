"""Docker's endpoints: addresses first, then an endpoint, then its veth pair, of which dockerd takes one end away.

An address that was given, but belongs to no endpoint yet or no more, is held by a row of its own. Between
CreateEndpoint and Join, and after Leave, an endpoint is dormant: it holds its addresses and is not in the kernel. What
is inside the sandbox is dockerd's; here are the bridge's side, the filters and the published ports.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from netagent.errors import AlreadyExists, Conflict, InvalidRequest, NetagentError, NotFound
from netagent.ipam.allocate import needs_claim
from netagent.model.address import Address, Mac, derive_mac, parse_address
from netagent.model.container import Container, ContainerKind, ContainerState
from netagent.model.docker import DockerPool
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.given_route import parse_given_routes
from netagent.model.ids import ContainerId, EndpointId, NetworkId, parse_name, short
from netagent.model.network import Network
from netagent.model.port_grammar import parse_published
from netagent.services.blocks import BlockService
from netagent.services.context import Context
from netagent.services.docker_networks import DockerNetworks
from netagent.services.endpoints import EndpointService, refuse_taken_name
from netagent.services.locks import Locks
from netagent.services.ports import PortService
from netagent.services.wanted import Wanted

log = logging.getLogger("netagent.docker")

NOBODY = ContainerId("0" * 64)
"""Whose endpoints are that no container has."""

_HELD = "held"
"""The interface of rows that hold an address."""

SOURCE_PREFIX = "nac"
"""How the name of the end begins that dockerd takes away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """What dockerd needs to take an endpoint into a sandbox. ``routes``: destination and next hop, '' for on-link."""

    source: str
    gateways: tuple[Address, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()


class DockerEndpoints:
    """The addresses and endpoints of this host's dockerd."""

    def __init__(
        self,
        context: Context,
        networks: DockerNetworks,
        endpoints: EndpointService,
        blocks: BlockService,
        ports: PortService,
    ) -> None:
        self._context = context
        self._networks = networks
        self._endpoints = endpoints
        self._blocks = blocks
        self._ports = ports
        self._locks = Locks()

    # Addresses

    async def request_address(self, pool: DockerPool, address: str, *, is_gateway: bool) -> str:
        """Return an address out of a pool as a CIDR, held until it is released."""
        network = self._networks.network_of_pool(pool)
        if network is None:
            return self._networks.reserve_own(pool, address, is_gateway=is_gateway)
        subnet = next(s for s in network.subnets if str(s.prefix) == pool.subnet)
        if is_gateway:
            return f"{subnet.gateway}/{subnet.prefix.prefixlen}"
        asked = parse_address(address) if address else None
        if asked is None:
            await self._blocks.ensure(network)
        snapshot = self._context.snapshot()
        if asked is not None:
            needs_claim(snapshot, network, asked)
            given = EndpointAddress(address=asked, fixed=True)
        else:
            given = self._endpoints.choose(snapshot, Wanted(network=network, interface=""), subnet.prefix.version)
        self._context.journal.put_endpoints(
            (_reservation(network.id, given),), adopt=self._endpoints.records_of(network)
        )
        return f"{given.address}/{subnet.prefix.prefixlen}"

    def release_address(self, pool: DockerPool, address: str) -> None:
        """Let an address go; one that is not held, or that an endpoint has, is no error."""
        network = self._networks.network_of_pool(pool)
        if network is not None:
            self._context.journal.remove_endpoints((_reservation_id(network.id, parse_address(address)),))

    # Endpoints

    async def create(
        self, network_key: str, endpoint_id: EndpointId, addresses: Sequence[Address], mac: Mac | None
    ) -> Endpoint:
        """Make an endpoint out of held addresses, or of free ones; the same again returns the same."""
        async with self._locks.held(endpoint_id):
            network = self._networks.find(network_key)
            known = self._context.journal.endpoints.get(endpoint_id)
            if known is not None:
                return _same(known, network, addresses, mac)
            rows = self._context.journal.endpoints
            unheld = tuple(a for a in addresses if _reservation_id(network.id, a) not in rows)
            wanted = Wanted(network=network, interface=_source(endpoint_id), mac=mac, addresses=unheld)
            self._endpoints.check((wanted,))
            await self._blocks.ensure(network)
            endpoint, held = self._decide(network, endpoint_id, addresses, mac)
            journal = self._context.journal
            journal.put_endpoints((endpoint,), adopt=self._endpoints.records_of(network))
            journal.remove_endpoints(row.id for row in held)
            try:
                await self._endpoints.claim((endpoint,))
            except BaseException:
                journal.put_endpoints(held)
                journal.remove_endpoints((endpoint_id,))
                raise
            return endpoint

    def _decide(
        self, network: Network, endpoint_id: EndpointId, addresses: Sequence[Address], mac: Mac | None
    ) -> tuple[Endpoint, list[Endpoint]]:
        """Return the endpoint, and the rows that have held its addresses."""
        snapshot = self._context.snapshot()
        held: list[Endpoint] = []
        given: dict[int, EndpointAddress] = {}
        for address in addresses:
            row = self._context.journal.endpoints.get(_reservation_id(network.id, address))
            if row is not None:
                held.append(row)
                given[address.version] = row.addresses[0]
            else:
                needs_claim(snapshot, network, address)
                given[address.version] = EndpointAddress(address=address, fixed=True)
        want = Wanted(network=network, interface="")
        for version in dict.fromkeys(subnet.prefix.version for subnet in network.subnets):
            # Without an address of a family Docker wants none of it; without any at all it leaves the choice to us.
            if not addresses:
                given[version] = self._endpoints.choose(snapshot, want, version)
        chosen = tuple(given[version] for version in sorted(given))
        endpoint = Endpoint(
            id=endpoint_id,
            network_id=network.id,
            container_id=NOBODY,
            container_name=f"docker-{short(endpoint_id)}",
            interface=_source(endpoint_id),
            sandbox="",
            addresses=chosen,
            # Of the address, so that neighbours need not learn anew when a container comes back with it.
            mac=mac or derive_mac("docker", network.id, str(chosen[0].address)),
            state=EndpointState.DORMANT,
        )
        return endpoint, held

    def find(self, endpoint_id: EndpointId) -> Endpoint:
        """Return an endpoint of Docker's."""
        endpoint = self._context.journal.endpoints.get(endpoint_id)
        if endpoint is None or not _is_dockers(endpoint):
            raise NotFound(f"endpoint {short(endpoint_id)} is not known to netagent")
        return endpoint

    async def join(self, network_key: str, endpoint_id: EndpointId, sandbox_key: str) -> Joined:
        """Make an endpoint's veth pair, for dockerd to take its end away; the same again returns the same."""
        async with self._locks.held(endpoint_id):
            network = self._networks.find(network_key)
            endpoint = self.find(endpoint_id)
            if endpoint.network_id != network.id:
                raise InvalidRequest(f"endpoint {short(endpoint_id)} is not in network {short(network_key)}")
            container = self._container_for(sandbox_key)
            if not endpoint.in_kernel:
                await self._attach(endpoint, container, network)
            elif endpoint.container_id != container.id:
                raise Conflict(f"endpoint {short(endpoint_id)} is in another sandbox already")
            return _joined(endpoint, network)

    async def _attach(self, endpoint: Endpoint, container: Container, network: Network) -> None:
        context, journal = self._context, self._context.journal
        is_new = container.id not in journal.containers
        row = replace(endpoint, container_id=container.id, container_name=container.name, state=EndpointState.ATTACHING)
        journal.put_endpoints(
            (row,), container=container if is_new else None, adopt=self._endpoints.records_of(network)
        )
        try:
            await context.engine.attach(row)
        except BaseException:
            await self._settle(row)
            raise
        attached = replace(row, state=EndpointState.ATTACHED)
        journal.put_endpoints((attached,))
        self._endpoints.tell("connect", (attached,))
        context.names.request((attached.id,))

    def _container_for(self, sandbox_key: str) -> Container:
        """Return the container that a sandbox belongs to, known or new; its name Docker tells later."""
        containers = self._context.journal.containers.values()
        known = next((c for c in containers if c.kind is ContainerKind.DOCKER and c.sandbox == sandbox_key), None)
        if known is not None:
            return known
        name = parse_name(f"docker-{sandbox_key.rpartition('/')[2]}", what="container")
        refuse_taken_name(name, containers)
        return Container(
            id=ContainerId(self._context.new_id()),
            name=name,
            kind=ContainerKind.DOCKER,
            sandbox=sandbox_key,
            state=ContainerState.RUNNING,
            created=self._context.now(),
        )

    async def leave(self, endpoint_id: EndpointId) -> None:
        """Take an endpoint out of the kernel; one that is not there is no error."""
        async with self._locks.held(endpoint_id):
            endpoint = self._context.journal.endpoints.get(endpoint_id)
            if endpoint is not None and _is_dockers(endpoint) and endpoint.in_kernel:
                await self._take_out(endpoint)

    async def _take_out(self, endpoint: Endpoint) -> None:
        leaving = replace(endpoint, state=EndpointState.DETACHING)
        self._context.journal.put_endpoints((leaving,))
        await self._settle(leaving)
        self._endpoints.tell("disconnect", (leaving,))
        self._context.names.request((leaving.id,))

    async def _settle(self, endpoint: Endpoint) -> None:
        """Let an endpoint sleep, and forget its container if it was the last."""
        journal = self._context.journal
        await self._endpoints.take_down((endpoint,))
        asleep = replace(
            endpoint,
            container_id=NOBODY,
            container_name=f"docker-{short(endpoint.id)}",
            ports=(),
            aliases=(),
            hostname="",
            state=EndpointState.DORMANT,
        )
        journal.put_endpoints((asleep,))
        if endpoint.container_id != NOBODY and not journal.endpoints_of(endpoint.container_id):
            journal.remove_container(endpoint.container_id)

    async def delete(self, endpoint_id: EndpointId) -> None:
        """Forget an endpoint; its addresses are held until Docker releases them. An unknown one is no error."""
        await self.leave(endpoint_id)
        async with self._locks.held(endpoint_id):
            endpoint = self._context.journal.endpoints.get(endpoint_id)
            if endpoint is None or not _is_dockers(endpoint):
                return
            journal = self._context.journal
            journal.put_endpoints(_reservation(endpoint.network_id, given) for given in endpoint.addresses)
            journal.remove_endpoints((endpoint_id,))
            self._context.publish_records()

    def rows(self) -> list[Endpoint]:
        """Return all that this host holds for Docker: endpoints, and addresses that no endpoint has."""
        return [row for row in self._context.journal.endpoints.values() if _is_dockers(row) or is_held_address(row)]

    async def forget(self, row: Endpoint) -> None:
        """Let go of what dockerd does not have any more; what has changed since ``row`` was read stays."""
        async with self._locks.held(row.id):
            journal = self._context.journal
            if journal.endpoints.get(row.id) is not row:
                return
            if row.in_kernel:
                await self._take_out(row)
            journal.remove_endpoints((row.id,))
            self._context.publish_records()

    # Ports

    async def publish(self, endpoint_id: EndpointId, texts: Sequence[str]) -> None:
        """Publish exactly these ports of an endpoint; the same again changes nothing."""
        wanted = parse_published(tuple(texts))
        async with self._locks.held(endpoint_id):
            endpoint = self.find(endpoint_id)
            network = self._context.snapshot().networks.get(endpoint.network_id)
            if network is None or not endpoint.in_kernel:
                raise Conflict(f"endpoint {short(endpoint_id)} is in no sandbox")
            if endpoint.ports or not wanted:
                return
            taken = self._ports.take(wanted, network)
            try:
                await self._endpoints.set_ports(endpoint, taken)
            except BaseException:
                self._ports.release(taken)
                raise

    async def revoke(self, endpoint_id: EndpointId) -> None:
        """Publish nothing of an endpoint any more; an unknown one is no error."""
        async with self._locks.held(endpoint_id):
            endpoint = self._context.journal.endpoints.get(endpoint_id)
            if endpoint is not None and _is_dockers(endpoint) and endpoint.ports:
                await self._endpoints.set_ports(endpoint, ())
                self._ports.release(endpoint.ports)

    # Starting anew

    async def recover(self) -> None:
        """Settle what an earlier agent left half-done; dockerd goes on from there."""
        for endpoint in tuple(self._context.journal.endpoints.values()):
            half_way = (EndpointState.ATTACHING, EndpointState.DETACHING)
            if _is_dockers(endpoint) and endpoint.state in half_way:
                try:
                    await self._settle(endpoint)
                except NetagentError as error:
                    log.error("endpoint %s is not as it should be: %s", short(endpoint.id), error)
        for container in tuple(self._context.journal.containers.values()):
            if container.kind is ContainerKind.DOCKER and not self._context.journal.endpoints_of(container.id):
                self._context.journal.remove_container(container.id)


def _reservation_id(network_id: NetworkId, address: Address) -> EndpointId:
    return EndpointId(hashlib.sha256(f"docker {network_id} {address}".encode()).hexdigest())


def _reservation(network_id: NetworkId, given: EndpointAddress) -> Endpoint:
    """Return the row that holds an address for Docker while no endpoint has it."""
    return Endpoint(
        id=_reservation_id(network_id, given.address),
        network_id=network_id,
        container_id=NOBODY,
        container_name="docker",
        interface=_HELD,
        sandbox="",
        addresses=(given,),
        mac=derive_mac("docker", network_id, str(given.address)),
        state=EndpointState.DORMANT,
    )


def _source(endpoint_id: EndpointId) -> str:
    return f"{SOURCE_PREFIX}{short(endpoint_id)}"


def is_held_address(row: Endpoint) -> bool:
    """Tell whether a row holds an address for Docker while no endpoint has it."""
    return row.container_id == NOBODY and row.interface == _HELD


def _is_dockers(endpoint: Endpoint) -> bool:
    return endpoint.interface == _source(endpoint.id)


def _same(known: Endpoint, network: Network, addresses: Sequence[Address], mac: Mac | None) -> Endpoint:
    """Return an endpoint that is there already if it is as it is asked for now."""
    held = {given.address for given in known.addresses}
    if not _is_dockers(known) or known.network_id != network.id or not held.issuperset(addresses):
        raise AlreadyExists(f"endpoint {short(known.id)} exists already, with other settings")
    if mac is not None and known.mac != mac:
        raise AlreadyExists(f"endpoint {short(known.id)} exists already, with the MAC {known.mac}")
    return known


def _joined(endpoint: Endpoint, network: Network) -> Joined:
    """Return what Docker is to do in the sandbox.

    IPv6 has no proxy of neighbours: both halves of the subnet lead through the gateway, to which a route of its own
    leads, because a next hop must not be reached through another one (ip6_route_check_nh, net/ipv6/route.c).
    """
    gateways: list[Address] = []
    routes: list[tuple[str, str]] = []
    for subnet in network.subnets:
        if endpoint.address_of(subnet.prefix.version) is None:
            continue
        if network.default_route and not network.internal:
            gateways.append(subnet.gateway)
        if subnet.prefix.version == 6 and subnet.prefix.prefixlen < subnet.prefix.max_prefixlen:
            routes.append((f"{subnet.gateway}/128", ""))
            routes += [(str(half), str(subnet.gateway)) for half in subnet.prefix.subnets(prefixlen_diff=1)]
    for given in parse_given_routes(network.routes, network):
        if endpoint.address_of(given.destination.version) is not None:
            routes.append((str(given.destination), str(given.gateway)))
    return Joined(source=endpoint.interface, gateways=tuple(gateways), routes=tuple(routes))
