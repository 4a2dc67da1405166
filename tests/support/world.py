"""Small worlds for unit tests: networks, hosts and endpoints with sensible values."""

from netagent.model.address import derive_mac, parse_address, parse_prefix
from netagent.model.block import Block, FixedAddress
from netagent.model.claims import Claims
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.endpoint_index import Endpoints
from netagent.model.host import Host, HostFacts, HostRoute
from netagent.model.host_index import Hosts
from netagent.model.ids import ContainerId, EndpointId, HostId, NetworkId
from netagent.model.network import Network, Scope, Subnet
from netagent.model.persistent_map import PersistentSet
from netagent.model.port_grammar import parse_published
from netagent.model.snapshot import Snapshot

STATICNET = NetworkId("a" * 64)
LOCALNET = NetworkId("b" * 64)
H1, H2, H3 = (HostId(f"00000000-0000-0000-0000-00000000000{n}") for n in (1, 2, 3))


def a_host(number: int, *, mtu: int = 1500) -> Host:
    return Host(
        id=(H1, H2, H3)[number - 1],
        name=f"h{number}",
        underlay=(parse_address(f"198.18.0.{number}"),),
        mtu=mtu,
        interface="eth0",
        on_link=(parse_prefix("198.18.0.0/24"),),
    )


def a_subnet(prefix: str, *, block_length: int | None = None, gateway: str | None = None) -> Subnet:
    parsed = parse_prefix(prefix)
    return Subnet(
        prefix=parsed,
        gateway=parse_address(gateway) if gateway else parsed[1],
        block_length=block_length or parsed.prefixlen,
    )


def an_overlay(*, mtu: int | None = None, internal: bool = False) -> Network:
    return Network(
        id=STATICNET,
        name="staticnet",
        driver="vxlan",
        scope=Scope.GLOBAL,
        subnets=(a_subnet("192.168.0.0/16", block_length=24),),
        vni=4097,
        mtu=mtu,
        internal=internal,
    )


def a_local_network(*prefixes: str, name: str = "app") -> Network:
    return Network(
        id=LOCALNET,
        name=name,
        driver="bridge",
        scope=Scope.LOCAL,
        subnets=tuple(a_subnet(prefix) for prefix in prefixes or ("172.16.0.0/24",)),
    )


def a_block(prefix: str, owner: HostId, *, network: NetworkId = STATICNET, own: bool = True) -> Block:
    parsed = parse_prefix(prefix)
    return Block(network_id=network, prefix=parsed, owner=owner, epoch=1, own_address=parsed[0] if own else None)


def a_claim(address: str, owner: HostId, endpoint: str = "e" * 64) -> FixedAddress:
    return FixedAddress(
        network_id=STATICNET,
        address=parse_address(address),
        owner=owner,
        epoch=1,
        endpoint_id=EndpointId(endpoint),
    )


def an_endpoint(
    *addresses: str,
    digit: str = "e",
    network: NetworkId = STATICNET,
    publish: tuple[str, ...] = (),
    state: EndpointState = EndpointState.ATTACHED,
    fixed: bool = False,
) -> Endpoint:
    identity = EndpointId(digit * 64)
    return Endpoint(
        id=identity,
        network_id=network,
        container_id=ContainerId("c" * 64),
        container_name="web",
        interface="eth0",
        sandbox="/run/netns/web",
        sandbox_inode=42,
        addresses=tuple(EndpointAddress(address=parse_address(a), fixed=fixed) for a in addresses),
        mac=derive_mac("endpoint", identity),
        ports=parse_published(publish),
        state=state,
    )


def two_hosts(network: Network, *endpoints: Endpoint, fixed: tuple[FixedAddress, ...] = ()) -> Snapshot:
    """What h1 sees of ``network`` when h1 holds 192.168.1.0/24 and h2 192.168.2.0/24."""
    return Snapshot(
        host=a_host(1),
        networks={network.id: network},
        hosts=Hosts.of((a_host(1), a_host(2))),
        live=PersistentSet().updated((H1, H2)),
        claims=Claims.of((a_block("192.168.1.0/24", H1), a_block("192.168.2.0/24", H2), *fixed)),
        endpoints=Endpoints.of(endpoints),
    )


def facts(*routes: str, interfaces: dict[str, tuple[int, tuple[str, ...]]] | None = None) -> HostFacts:
    return HostFacts(
        interfaces={
            name: (mtu, tuple(parse_address(a) for a in addresses))
            for name, (mtu, addresses) in (interfaces or {}).items()
        },
        routes=tuple(HostRoute(prefix=parse_prefix(route), device="eth0") for route in routes),
    )
