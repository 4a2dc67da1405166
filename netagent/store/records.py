"""Records: values of the store and of the journal as JSON, and back, trusting nothing.

Every record carries ``v`` (the layout's version) and ``requires`` (features without which it must not be used).
An unknown key is kept when a record is rewritten (``updated``); an unknown required feature, another version, a wrong
type, a wrong size or an address out of place refuses the record with ``InvalidRecord``, never more than that one.
"""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from netagent.drivers import driver_named
from netagent.errors import InvalidRequest, NetagentError
from netagent.ipam.pools import check_usable
from netagent.model.address import Address, is_inside, parse_address, parse_mac, parse_prefix
from netagent.model.block import Block, BlockState, FixedAddress
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.host import Host
from netagent.model.ids import ContainerId, EndpointId, HostId, NetworkId, parse_alias, parse_interface_name, parse_name
from netagent.model.network import Network, NetworkState, Scope, Subnet, Way
from netagent.model.outward import parse_exemptions, parse_outbound
from netagent.model.port import PROTOCOLS, PortMapping
from netagent.model.port_grammar import SOURCES_LIMIT, parse_sources
from netagent.model.rate import HIGHEST_BITS, LARGEST_BURST_BYTES, LOWEST_BITS, Rate
from netagent.plan.mtu import MAXIMUM_MTU, MINIMUM_MTU

VERSION = 1
SUPPORTED_FEATURES: frozenset[str] = frozenset()
SIZE_LIMIT = 1024 * 1024
"""Bytes of a record; an endpoint with 1,000 published ports in no order has 100 kB."""

_T = TypeVar("_T")
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Hex64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
HostText = Annotated[str, msgspec.Meta(pattern="^[0-9a-f-]{36}$")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Vni = Annotated[int, msgspec.Meta(ge=1, le=(1 << 24) - 1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Mtu = Annotated[int, msgspec.Meta(ge=MINIMUM_MTU[4], le=MAXIMUM_MTU)]
UnderlayMtu = Annotated[int, msgspec.Meta(ge=576, le=1 << 20)]
"""Bytes. Every host must take datagrams of 576 octets (RFC 791, 3.1); less would leave no room for a tunnel."""


class InvalidRecord(NetagentError):
    """A record that must not be used; the others are not affected."""


class Header(msgspec.Struct, kw_only=True, omit_defaults=False):
    """What every record begins with."""

    v: int = VERSION
    requires: list[Text] = []


class SubnetRecord(msgspec.Struct, kw_only=True):
    """One subnet of a network."""

    prefix: Text
    gateway: Text
    block_length: Count
    ip_range: Text | None = None
    auxiliary: Annotated[dict[Text, Text], msgspec.Meta(max_length=4096)] = {}


class WayRecord(msgspec.Struct, kw_only=True):
    """How hosts reached each other before a network's present way."""

    driver: Text
    underlay: Literal[4, 6] = 4
    direct_routing: bool = False
    fallback: Literal["vxlan"] | None = None
    backend: Literal["kernel", "ovs"] | None = None


class NetworkRecord(Header, kw_only=True):
    """``networks/<name>``."""

    id: Hex64
    name: Text
    driver: Text
    scope: Scope
    subnets: Annotated[list[SubnetRecord], msgspec.Meta(max_length=64)]
    vni: Vni | None = None
    internal: bool = False
    mtu: Mtu | None = None
    bridge: Text | None = None
    icc: bool = True
    masquerade: bool = True
    masquerade_except: Annotated[list[Text], msgspec.Meta(max_length=256)] = []
    outbound: Annotated[list[Text], msgspec.Meta(max_length=2)] = []
    underlay: Literal[4, 6] = 4
    direct_routing: bool = False
    fallback: Literal["vxlan"] | None = None
    host_bindings: Annotated[list[Text], msgspec.Meta(max_length=2)] = []
    overlaps: bool = False
    backend: Literal["kernel", "ovs"] | None = None
    before: WayRecord | None = None
    moves: Count = 0
    options: dict[Text, Text] = {}
    labels: dict[Text, Text] = {}
    created: Text = ""
    state: NetworkState = NetworkState.ACTIVE


class HostRecord(Header, kw_only=True):
    """``hosts/<uuid>``."""

    id: HostText
    name: Text
    underlay: Annotated[list[Text], msgspec.Meta(max_length=8)]
    mtu: UnderlayMtu
    interface: Text = ""
    on_link: Annotated[list[Text], msgspec.Meta(max_length=64)] = []
    features: Annotated[list[Text], msgspec.Meta(max_length=64)] = []
    routes: Annotated[list[Text], msgspec.Meta(max_length=1024)] = []


class BlockRecord(Header, kw_only=True):
    """``blocks/<network>/<address>-<length>``."""

    network: Hex64
    prefix: Text
    owner: HostText
    epoch: Count
    own_address: Text | None = None
    state: BlockState = BlockState.CONFIRMED
    prepared: Count = 0
    moves: Count = 0


class AddressRecord(Header, kw_only=True):
    """``addresses/<network>/<block>/<address>``."""

    network: Hex64
    address: Text
    owner: HostText
    epoch: Count
    endpoint: Hex64


class EndpointAddressRecord(msgspec.Struct, kw_only=True):
    """One address of an endpoint."""

    address: Text
    fixed: bool = False


class PortRecord(msgspec.Struct, kw_only=True):
    """One mapping of published ports."""

    protocol: Text
    container_port: Port
    host_port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    count: Port = 1
    choices: Port = 1
    host_address: Text | None = None
    sources: Annotated[list[Text], msgspec.Meta(max_length=SOURCES_LIMIT)] = []


class RateRecord(msgspec.Struct, kw_only=True):
    """A limit of an endpoint, bits a second and bytes."""

    bits: Annotated[int, msgspec.Meta(ge=LOWEST_BITS, le=HIGHEST_BITS)]
    burst: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_BURST_BYTES)] | None = None


class EndpointRecord(Header, kw_only=True):
    """``endpoints/<host>/<network>/<endpoint>``, and the journal's row."""

    id: Hex64
    network: Hex64
    container: Hex64
    name: Text
    interface: Text
    sandbox: Text = ""
    sandbox_inode: Count = 0
    addresses: Annotated[list[EndpointAddressRecord], msgspec.Meta(max_length=64)]
    mac: Text
    ports: Annotated[list[PortRecord], msgspec.Meta(max_length=65535)] = []
    aliases: Annotated[list[Text], msgspec.Meta(max_length=256)] = []
    hostname: Text = ""
    gw_priority: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] = 0
    ways_out: Annotated[tuple[Literal[4, 6], ...], msgspec.Meta(max_length=2)] = (4, 6)
    rate_in: RateRecord | None = None
    rate_out: RateRecord | None = None
    state: EndpointState = EndpointState.ATTACHED


def updated(old: bytes | None, record: Header) -> bytes:
    """Return ``record`` as JSON, with the keys of ``old`` that this version does not know."""
    fresh: dict[str, Any] = msgspec.to_builtins(record)
    previous = None
    if old is not None:
        # What cannot be read has no keys worth keeping.
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            previous = msgspec.json.decode(old)
    if isinstance(previous, dict):
        fresh = {**{key: value for key, value in previous.items() if key not in fresh}, **fresh}
    return msgspec.json.encode(fresh)


def read_record(
    value: bytes, record_type: type[_T], convert: Callable[[_T], Any], *, limit: int | None = SIZE_LIMIT
) -> Any:
    """Return what ``convert`` makes of a record, or raise InvalidRecord."""
    if limit is not None and len(value) > limit:
        raise InvalidRecord(f"record of {len(value)} bytes, more than {limit}")
    try:
        header = msgspec.json.decode(value, type=Header)
        if header.v != VERSION:
            raise InvalidRecord(f"record has version {header.v}, this agent knows {VERSION}", hint="upgrade this agent")
        unknown = set(header.requires) - SUPPORTED_FEATURES
        if unknown:
            raise InvalidRecord(f"record requires {', '.join(sorted(unknown))}", hint="upgrade this agent")
        return convert(msgspec.json.decode(value, type=record_type))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidRequest) as error:
        raise InvalidRecord(f"record is not valid: {error}") from error


def encode_network(network: Network, old: bytes | None = None) -> bytes:
    """Return the record of a network."""
    record = NetworkRecord(
        id=network.id,
        name=network.name,
        driver=network.driver,
        scope=network.scope,
        subnets=[
            SubnetRecord(
                prefix=str(s.prefix),
                gateway=str(s.gateway),
                block_length=s.block_length,
                ip_range=None if s.ip_range is None else str(s.ip_range),
                auxiliary={name: str(address) for name, address in s.auxiliary},
            )
            for s in network.subnets
        ],
        vni=network.vni,
        internal=network.internal,
        mtu=network.mtu,
        bridge=network.bridge,
        icc=network.icc,
        masquerade=network.masquerade,
        masquerade_except=list(map(str, network.masquerade_except)),
        outbound=list(map(str, network.outbound)),
        underlay=6 if network.underlay == 6 else 4,
        direct_routing=network.direct_routing,
        fallback="vxlan" if network.fallback else None,
        host_bindings=list(map(str, network.host_bindings)),
        overlaps=network.overlaps,
        backend=None if network.backend is None else "ovs" if network.backend == "ovs" else "kernel",
        before=None if network.before is None else msgspec.convert(_fields(network.before), WayRecord),
        moves=network.moves,
        options=dict(network.options),
        labels=dict(network.labels),
        created=network.created,
        state=network.state,
    )
    return updated(old, record)


def _fields(way: Way) -> dict[str, Any]:
    return {field.name: getattr(way, field.name) for field in dataclasses.fields(way)}


def decode_network(value: bytes) -> Network:
    """Return the network of a record, or raise InvalidRecord."""

    def convert(record: NetworkRecord) -> Network:
        if record.subnets:
            _check_driver(record)
        return Network(
            id=NetworkId(record.id),
            name=parse_name(record.name, what="network"),
            driver=record.driver,
            scope=record.scope,
            subnets=tuple(_decode_subnet(subnet) for subnet in record.subnets),
            vni=record.vni,
            internal=record.internal,
            mtu=record.mtu,
            bridge=None if record.bridge is None else parse_interface_name(record.bridge),
            icc=record.icc,
            masquerade=record.masquerade,
            masquerade_except=parse_exemptions(",".join(record.masquerade_except)),
            outbound=parse_outbound(record.outbound),
            underlay=record.underlay,
            direct_routing=record.direct_routing,
            fallback=record.fallback,
            host_bindings=tuple(map(parse_address, record.host_bindings)),
            overlaps=record.overlaps,
            backend=record.backend,
            before=None if record.before is None else Way(**msgspec.structs.asdict(record.before)),
            moves=record.moves,
            options=MappingProxyType(record.options),
            labels=MappingProxyType(record.labels),
            created=record.created,
            state=record.state,
        )

    network: Network = read_record(value, NetworkRecord, convert)
    return network


def _check_driver(record: NetworkRecord) -> None:
    """Raise InvalidRequest for a network that this version cannot render."""
    if record.before is not None and driver_named(record.before.driver).scope is not record.scope:
        raise InvalidRequest(f"driver {record.before.driver} does not make {record.scope} networks")
    driver = driver_named(record.driver)
    if driver.scope is not record.scope:
        raise InvalidRequest(f"driver {driver.name} does not make {record.scope} networks")
    if driver.needs_number and record.vni is None:
        raise InvalidRequest(f"driver {driver.name} needs a number")


def _decode_subnet(record: SubnetRecord) -> Subnet:
    prefix, gateway = parse_prefix(record.prefix), parse_address(record.gateway)
    check_usable(prefix)
    if gateway not in prefix:
        raise InvalidRequest(f"gateway {gateway} is outside {prefix}")
    if not prefix.prefixlen <= record.block_length <= prefix.max_prefixlen:
        raise InvalidRequest(f"block length {record.block_length} does not fit {prefix}")
    ip_range = None if record.ip_range is None else parse_prefix(record.ip_range)
    if ip_range is not None and not is_inside(ip_range, prefix):
        raise InvalidRequest(f"range {ip_range} is outside {prefix}")
    auxiliary = tuple((name, parse_address(text)) for name, text in record.auxiliary.items())
    return Subnet(
        prefix=prefix, gateway=gateway, block_length=record.block_length, ip_range=ip_range, auxiliary=auxiliary
    )


def encode_host(host: Host, old: bytes | None = None) -> bytes:
    """Return the record of a host."""
    record = HostRecord(
        id=host.id,
        name=host.name,
        underlay=[str(address) for address in host.underlay],
        mtu=host.mtu,
        interface=host.interface,
        on_link=[str(prefix) for prefix in host.on_link],
        features=sorted(host.features),
        routes=[str(prefix) for prefix in host.routes],
    )
    return updated(old, record)


def decode_host(value: bytes) -> Host:
    """Return the host of a record, or raise InvalidRecord."""

    def convert(record: HostRecord) -> Host:
        return Host(
            id=HostId(record.id),
            name=parse_name(record.name, what="host"),
            underlay=tuple(map(_parse_underlay, record.underlay)),
            mtu=record.mtu,
            interface=record.interface,
            on_link=tuple(parse_prefix(text) for text in record.on_link),
            features=frozenset(record.features),
            routes=tuple(parse_prefix(text) for text in record.routes),
        )

    host: Host = read_record(value, HostRecord, convert)
    return host


def _parse_underlay(text: str) -> Address:
    """Return an address at which a host can be reached from another one."""
    address = parse_address(text)
    if address.is_loopback or address.is_multicast or address.is_unspecified or address.is_link_local:
        raise InvalidRequest(f"{address} is no address that other hosts can reach")
    if address.version == 4 and int(address) == 0xFFFFFFFF:
        raise InvalidRequest(f"{address} is the broadcast address")
    return address


def encode_block(block: Block, old: bytes | None = None) -> bytes:
    """Return the record of a block claim."""
    record = BlockRecord(
        network=block.network_id,
        prefix=str(block.prefix),
        owner=block.owner,
        epoch=block.epoch,
        own_address=None if block.own_address is None else str(block.own_address),
        state=block.state,
        prepared=block.prepared,
        moves=block.moves,
    )
    return updated(old, record)


def decode_block(value: bytes) -> Block:
    """Return the block of a record, or raise InvalidRecord."""

    def convert(record: BlockRecord) -> Block:
        prefix = parse_prefix(record.prefix)
        own = None if record.own_address is None else parse_address(record.own_address)
        if own is not None and own not in prefix:
            raise InvalidRequest(f"own address {own} is outside block {prefix}")
        return Block(
            network_id=NetworkId(record.network),
            prefix=prefix,
            owner=HostId(record.owner),
            epoch=record.epoch,
            own_address=own,
            state=record.state,
            prepared=record.prepared,
            moves=record.moves,
        )

    block: Block = read_record(value, BlockRecord, convert)
    return block


def encode_fixed(claim: FixedAddress, old: bytes | None = None) -> bytes:
    """Return the record of a fixed-address claim."""
    record = AddressRecord(
        network=claim.network_id,
        address=str(claim.address),
        owner=claim.owner,
        epoch=claim.epoch,
        endpoint=claim.endpoint_id,
    )
    return updated(old, record)


def decode_fixed(value: bytes) -> FixedAddress:
    """Return the fixed-address claim of a record, or raise InvalidRecord."""

    def convert(record: AddressRecord) -> FixedAddress:
        return FixedAddress(
            network_id=NetworkId(record.network),
            address=parse_address(record.address),
            owner=HostId(record.owner),
            epoch=record.epoch,
            endpoint_id=EndpointId(record.endpoint),
        )

    claim: FixedAddress = read_record(value, AddressRecord, convert)
    return claim


def encode_endpoint(endpoint: Endpoint, old: bytes | None = None) -> bytes:
    """Return the record of an endpoint."""
    record = EndpointRecord(
        id=endpoint.id,
        network=endpoint.network_id,
        container=endpoint.container_id,
        name=endpoint.container_name,
        interface=endpoint.interface,
        sandbox=endpoint.sandbox,
        sandbox_inode=endpoint.sandbox_inode,
        addresses=[EndpointAddressRecord(address=str(a.address), fixed=a.fixed) for a in endpoint.addresses],
        mac=endpoint.mac,
        ports=[
            PortRecord(
                protocol=p.protocol,
                container_port=p.container_port,
                host_port=p.host_port,
                count=p.count,
                choices=p.choices,
                sources=list(map(str, p.sources)),
                host_address=None if p.host_address is None else str(p.host_address),
            )
            for p in endpoint.ports
        ],
        aliases=list(endpoint.aliases),
        hostname=endpoint.hostname,
        gw_priority=endpoint.gw_priority,
        ways_out=tuple(version for version in (4, 6) if version in endpoint.ways_out),
        rate_in=_encode_rate(endpoint.rate_in),
        rate_out=_encode_rate(endpoint.rate_out),
        state=endpoint.state,
    )
    return updated(old, record)


def decode_endpoint(value: bytes, *, limit: int | None = SIZE_LIMIT) -> Endpoint:
    """Return the endpoint of a record, or raise InvalidRecord; ``limit`` None for a record of our own journal."""

    def convert(record: EndpointRecord) -> Endpoint:
        return Endpoint(
            id=EndpointId(record.id),
            network_id=NetworkId(record.network),
            container_id=ContainerId(record.container),
            container_name=parse_name(record.name, what="container"),
            interface=parse_interface_name(record.interface),
            sandbox=record.sandbox,
            sandbox_inode=record.sandbox_inode,
            addresses=tuple(EndpointAddress(address=parse_address(a.address), fixed=a.fixed) for a in record.addresses),
            mac=parse_mac(record.mac),
            ports=tuple(_decode_port(port) for port in record.ports),
            aliases=tuple(parse_alias(alias) for alias in record.aliases),
            hostname=record.hostname,
            gw_priority=record.gw_priority,
            ways_out=record.ways_out,
            rate_in=_decode_rate(record.rate_in),
            rate_out=_decode_rate(record.rate_out),
            state=record.state,
        )

    endpoint: Endpoint = read_record(value, EndpointRecord, convert, limit=limit)
    return endpoint


def _encode_rate(rate: Rate | None) -> RateRecord | None:
    return None if rate is None else RateRecord(bits=rate.bits, burst=rate.burst)


def _decode_rate(record: RateRecord | None) -> Rate | None:
    return None if record is None else Rate(bits=record.bits, burst=record.burst)


def _decode_port(record: PortRecord) -> PortMapping:
    if record.protocol not in PROTOCOLS:
        raise InvalidRequest(f"invalid proto: {record.protocol}")
    return PortMapping(
        protocol=record.protocol,
        container_port=record.container_port,
        host_port=record.host_port,
        count=record.count,
        choices=record.choices,
        sources=parse_sources(record.sources),
        host_address=None if record.host_address is None else parse_address(record.host_address),
    )
