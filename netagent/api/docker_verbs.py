"""What each call of dockerd asks of the services, and what it is told."""

import hashlib
from collections.abc import Awaitable, Callable
from ipaddress import ip_interface
from typing import Any, TypeAlias

import msgspec

from netagent.api import docker_messages as messages
from netagent.errors import InvalidRequest
from netagent.model.address import Address, parse_mac
from netagent.model.ids import EndpointId
from netagent.services.docker_endpoints import DockerEndpoints, Joined
from netagent.services.docker_networks import ADDRESS_SPACE, DockerNetworks, NewDockerNetwork

Answer: TypeAlias = dict[str, Any]
Verb: TypeAlias = Callable[[Any], Awaitable[Answer]]


class DockerVerbs:
    """The calls by path: the type of their body, None where there is none, and what carries them out."""

    def __init__(self, networks: DockerNetworks, endpoints: DockerEndpoints) -> None:
        self._networks = networks
        self._endpoints = endpoints
        self.table: dict[str, tuple[type | None, Verb]] = {
            "/Plugin.Activate": (None, _constant({"Implements": ["NetworkDriver", "IpamDriver"]})),
            "/NetworkDriver.GetCapabilities": (None, _constant({"Scope": "local", "ConnectivityScope": "global"})),
            "/NetworkDriver.CreateNetwork": (messages.CreateNetwork, self._create_network),
            "/NetworkDriver.DeleteNetwork": (messages.OfNetwork, self._delete_network),
            "/NetworkDriver.CreateEndpoint": (messages.CreateEndpoint, self._create_endpoint),
            "/NetworkDriver.EndpointOperInfo": (messages.OfEndpoint, _constant({"Value": {}})),
            "/NetworkDriver.DeleteEndpoint": (messages.OfEndpoint, self._delete_endpoint),
            "/NetworkDriver.Join": (messages.OfEndpoint, self._join),
            "/NetworkDriver.Leave": (messages.OfEndpoint, self._leave),
            "/NetworkDriver.ProgramExternalConnectivity": (messages.OfEndpoint, self._publish),
            "/NetworkDriver.RevokeExternalConnectivity": (messages.OfEndpoint, self._revoke),
            "/NetworkDriver.DiscoverNew": (None, _constant({})),
            "/NetworkDriver.DiscoverDelete": (None, _constant({})),
            "/IpamDriver.GetCapabilities": (
                None,
                _constant({"RequiresMACAddress": False, "RequiresRequestReplay": False}),
            ),
            "/IpamDriver.GetDefaultAddressSpaces": (
                None,
                _constant({"LocalDefaultAddressSpace": ADDRESS_SPACE, "GlobalDefaultAddressSpace": ADDRESS_SPACE}),
            ),
            "/IpamDriver.RequestPool": (messages.RequestPool, self._request_pool),
            "/IpamDriver.ReleasePool": (messages.OfPool, self._release_pool),
            "/IpamDriver.RequestAddress": (messages.OfPool, self._request_address),
            "/IpamDriver.ReleaseAddress": (messages.OfPool, self._release_address),
        }

    # Networks

    async def _create_network(self, request: messages.CreateNetwork) -> Answer:
        data = (*(request.ipv4 or ()), *(request.ipv6 or ()))
        if any(one.address_space != ADDRESS_SPACE for one in data):
            raise InvalidRequest("the driver netagent gives addresses itself", hint="add --ipam-driver netagent")
        options = messages.parse_options(request.options)
        auxiliary = {name: _address(text) for one in data for name, text in (one.aux_addresses or {}).items()}
        await self._networks.create(
            NewDockerNetwork(
                id=request.network,
                digest=hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest(),
                subnets=tuple((one.pool, one.gateway) for one in data),
                aux_addresses={name: str(address) for name, address in auxiliary.items()},
                internal=(request.options or {}).get(messages.INTERNAL) is True,
                options=options,
            )
        )
        return {}

    async def _delete_network(self, request: messages.OfNetwork) -> Answer:
        await self._networks.delete(request.network)
        return {}

    # Endpoints

    async def _create_endpoint(self, request: messages.CreateEndpoint) -> Answer:
        asked = request.interface or messages.Interface()
        texts = [text for text in (asked.address, asked.address6) if text]
        mac = parse_mac(asked.mac) if asked.mac else None
        endpoint = await self._endpoints.create(
            request.network, EndpointId(request.endpoint), [_address(text) for text in texts], mac
        )
        # What Docker has given must not be given back: it takes that for an attempt to change it.
        answer: Answer = {} if asked.mac else {"MacAddress": endpoint.mac}
        if not texts:
            for given in endpoint.addresses:
                length = self._networks.find(request.network).subnet_of(given.address)
                assert length is not None
                name = "Address" if given.address.version == 4 else "AddressIPv6"
                answer[name] = f"{given.address}/{length.prefix.prefixlen}"
        return {"Interface": answer}

    async def _delete_endpoint(self, request: messages.OfEndpoint) -> Answer:
        await self._endpoints.delete(EndpointId(request.endpoint))
        return {}

    async def _join(self, request: messages.OfEndpoint) -> Answer:
        if not request.sandbox:
            raise InvalidRequest("Join without SandboxKey")
        joined = await self._endpoints.join(request.network, EndpointId(request.endpoint), request.sandbox)
        return _join_answer(joined)

    async def _leave(self, request: messages.OfEndpoint) -> Answer:
        await self._endpoints.leave(EndpointId(request.endpoint))
        return {}

    async def _publish(self, request: messages.OfEndpoint) -> Answer:
        await self._endpoints.publish(EndpointId(request.endpoint), messages.parse_ports(request.options))
        return {}

    async def _revoke(self, request: messages.OfEndpoint) -> Answer:
        await self._endpoints.revoke(EndpointId(request.endpoint))
        return {}

    # Addresses

    async def _request_pool(self, request: messages.RequestPool) -> Answer:
        pool = await self._networks.request_pool(
            request.pool, request.sub_pool, request.options or {}, ipv6=request.ipv6
        )
        return {"PoolID": pool.id, "Pool": pool.subnet, "Data": {}}

    async def _release_pool(self, request: messages.OfPool) -> Answer:
        await self._networks.release_pool(request.pool)
        return {}

    async def _request_address(self, request: messages.OfPool) -> Answer:
        is_gateway = (request.options or {}).get(messages.REQUEST_TYPE) == messages.GATEWAY_REQUEST
        pool = self._networks.pool(request.pool)
        address = await self._endpoints.request_address(pool, request.address, is_gateway=is_gateway)
        return {"Address": address, "Data": {}}

    async def _release_address(self, request: messages.OfPool) -> Answer:
        self._endpoints.release_address(self._networks.pool(request.pool), request.address)
        return {}


def _constant(answer: Answer) -> Verb:
    async def tell(_: Any) -> Answer:
        return answer

    return tell


def _address(text: str) -> Address:
    """Return the address of a CIDR."""
    try:
        return ip_interface(text).ip
    except ValueError:
        raise InvalidRequest(f"invalid address: {text}") from None


def _join_answer(joined: Joined) -> Answer:
    answer: Answer = {
        "InterfaceName": {"SrcName": joined.source, "DstPrefix": "eth"},
        "StaticRoutes": [
            {"Destination": destination, "RouteType": 0 if via else 1, "NextHop": via}
            for destination, via in joined.routes
        ],
        # Without it Docker gives a sandbox that has no gateway one of its own, beside the isolation.
        "DisableGatewayService": not joined.gateways,
    }
    for gateway in joined.gateways:
        answer["Gateway" if gateway.version == 4 else "GatewayIPv6"] = str(gateway)
    return answer
