"""The record of a network, and back."""

import dataclasses
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec

from netagent.drivers import driver_named
from netagent.errors import InvalidRequest
from netagent.ipam.pools import check_usable
from netagent.model.address import is_inside, parse_address, parse_prefix
from netagent.model.ids import NetworkId, parse_interface_name, parse_name
from netagent.model.network import DEFAULT_INTERFACE_PREFIX, Network, NetworkState, Scope, Subnet, Way
from netagent.model.outward import parse_exemptions, parse_outbound
from netagent.model.resolver import parse_nameserver
from netagent.store.record_format import (
    Count,
    Header,
    Hex64,
    InvalidRecord,
    Mtu,
    Text,
    Vni,
    read_record,
    updated,
)


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
    masquerade_except: Annotated[list[Text], msgspec.Meta(max_length=256)] = msgspec.field(default_factory=list)
    outbound: Annotated[list[Text], msgspec.Meta(max_length=2)] = msgspec.field(default_factory=list)
    underlay: Literal[4, 6] = 4
    direct_routing: bool = False
    fallback: Literal["vxlan"] | None = None
    host_bindings: Annotated[list[Text], msgspec.Meta(max_length=2)] = msgspec.field(default_factory=list)
    overlaps: bool = False
    backend: Literal["kernel", "ovs"] | None = None
    interface_prefix: Text = DEFAULT_INTERFACE_PREFIX
    routed: Annotated[tuple[Literal[4, 6], ...], msgspec.Meta(max_length=2)] = ()
    unprotected: Annotated[tuple[Literal[4, 6], ...], msgspec.Meta(max_length=2)] = ()
    trusted: Annotated[list[Text], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    default_route: bool = True
    routes: Annotated[list[tuple[Text, Text]], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    nameservers: Annotated[list[Text], msgspec.Meta(max_length=16)] = msgspec.field(default_factory=list)
    before: WayRecord | None = None
    moves: Count = 0
    back: bool = False
    options: dict[Text, Text] = msgspec.field(default_factory=dict)
    labels: dict[Text, Text] = msgspec.field(default_factory=dict)
    created: Text = ""
    state: NetworkState = NetworkState.ACTIVE


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
        interface_prefix=network.interface_prefix,
        routed=_versions(network.routed),
        unprotected=_versions(network.unprotected),
        trusted=list(network.trusted),
        default_route=network.default_route,
        routes=list(network.routes),
        nameservers=list(network.nameservers),
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
        back=network.back,
        options=dict(network.options),
        labels=dict(network.labels),
        created=network.created,
        state=network.state,
    )
    return updated(old, record)


def _fields(way: Way) -> dict[str, Any]:
    return {field.name: getattr(way, field.name) for field in dataclasses.fields(way)}


def _versions(versions: tuple[int, ...]) -> tuple[Literal[4, 6], ...]:
    return tuple(version for version in (4, 6) if version in versions)


def check_network(network: Network) -> None:
    """Refuse a network whose record nobody could read back, so that it could not be removed either."""
    try:
        decode_network(encode_network(network))
    except InvalidRecord as error:
        raise InvalidRequest(
            f"network {network.name} cannot be kept in the store: {error.message}", hint="give shorter or fewer texts"
        ) from error


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
            interface_prefix=parse_interface_name(record.interface_prefix),
            routed=record.routed,
            unprotected=record.unprotected,
            trusted=tuple(parse_interface_name(name) for name in record.trusted),
            default_route=record.default_route,
            routes=tuple(record.routes),
            nameservers=tuple(parse_nameserver(text) for text in record.nameservers),
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
            back=record.back,
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
