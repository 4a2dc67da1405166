"""The record of an endpoint, in the store and in the journal, and back."""

from typing import Annotated, Literal

import msgspec

from netagent.errors import InvalidRequest
from netagent.model.address import parse_address, parse_mac, parse_prefix
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.given_route import ROUTES_LIMIT, GivenRoute
from netagent.model.ids import ContainerId, EndpointId, NetworkId, parse_alias, parse_interface_name, parse_name
from netagent.model.link_local import ADDRESSES_LIMIT, parse_link_locals
from netagent.model.port import PROTOCOLS, PortMapping
from netagent.model.port_grammar import SOURCES_LIMIT, parse_sources
from netagent.model.rate import HIGHEST_BITS, LARGEST_BURST_BYTES, LOWEST_BITS, Rate
from netagent.store.record_format import SIZE_LIMIT, Count, Header, Hex64, Port, Text, read_record, updated


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
    sources: Annotated[list[Text], msgspec.Meta(max_length=SOURCES_LIMIT)] = msgspec.field(default_factory=list)


class RateRecord(msgspec.Struct, kw_only=True):
    """A limit of an endpoint, bits a second and bytes."""

    bits: Annotated[int, msgspec.Meta(ge=LOWEST_BITS, le=HIGHEST_BITS)]
    burst: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_BURST_BYTES)] | None = None


class RouteRecord(msgspec.Struct, kw_only=True):
    """A route inside an endpoint's sandbox."""

    destination: Text
    gateway: Text


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
    link_local: Annotated[list[Text], msgspec.Meta(max_length=ADDRESSES_LIMIT)] = msgspec.field(default_factory=list)
    mac: Text
    ports: Annotated[list[PortRecord], msgspec.Meta(max_length=65535)] = msgspec.field(default_factory=list)
    aliases: Annotated[list[Text], msgspec.Meta(max_length=256)] = msgspec.field(default_factory=list)
    hostname: Text = ""
    gw_priority: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] = 0
    ways_out: Annotated[tuple[Literal[4, 6], ...], msgspec.Meta(max_length=2)] = (4, 6)
    routes: Annotated[list[RouteRecord], msgspec.Meta(max_length=ROUTES_LIMIT)] = msgspec.field(default_factory=list)
    rate_in: RateRecord | None = None
    rate_out: RateRecord | None = None
    state: EndpointState = EndpointState.ATTACHED


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
        link_local=[str(address) for address in endpoint.link_local],
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
        routes=[RouteRecord(destination=str(r.destination), gateway=str(r.gateway)) for r in endpoint.given_routes],
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
            link_local=parse_link_locals(record.link_local),
            mac=parse_mac(record.mac),
            ports=tuple(_decode_port(port) for port in record.ports),
            aliases=tuple(parse_alias(alias) for alias in record.aliases),
            hostname=record.hostname,
            gw_priority=record.gw_priority,
            ways_out=record.ways_out,
            given_routes=tuple(_decode_route(route) for route in record.routes),
            rate_in=_decode_rate(record.rate_in),
            rate_out=_decode_rate(record.rate_out),
            state=record.state,
        )

    endpoint: Endpoint = read_record(value, EndpointRecord, convert, limit=limit)
    return endpoint


def _decode_route(record: RouteRecord) -> GivenRoute:
    destination, gateway = parse_prefix(record.destination, what="destination"), parse_address(record.gateway)
    if destination.version != gateway.version:
        raise InvalidRequest(f"invalid gateway {gateway} of a route to {destination}")
    return GivenRoute(destination=destination, gateway=gateway)


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
