"""The records of hosts, of their blocks and of fixed addresses, and back."""

from typing import Annotated

import msgspec

from netagent.errors import InvalidRequest
from netagent.model.address import parse_address, parse_prefix, parse_underlay
from netagent.model.block import Block, BlockState, FixedAddress
from netagent.model.host import Host
from netagent.model.ids import EndpointId, HostId, NetworkId, parse_name
from netagent.store.record_format import Count, Epoch, Header, Hex64, HostText, Text, UnderlayMtu, read_record, updated


class HostRecord(Header, kw_only=True):
    """``hosts/<uuid>``."""

    id: HostText
    name: Text
    underlay: Annotated[list[Text], msgspec.Meta(max_length=8)]
    mtu: UnderlayMtu
    interface: Text = ""
    on_link: Annotated[list[Text], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    features: Annotated[list[Text], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=list)
    routes: Annotated[list[Text], msgspec.Meta(max_length=1024)] = msgspec.field(default_factory=list)


class BlockRecord(Header, kw_only=True):
    """``blocks/<network>/<address>-<length>``."""

    network: Hex64
    prefix: Text
    owner: HostText
    epoch: Epoch
    own_address: Text | None = None
    state: BlockState = BlockState.CONFIRMED
    prepared: Count = 0
    moves: Count = 0


class AddressRecord(Header, kw_only=True):
    """``addresses/<network>/<block>/<address>``."""

    network: Hex64
    address: Text
    owner: HostText
    epoch: Epoch
    endpoint: Hex64


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
            underlay=tuple(map(parse_underlay, record.underlay)),
            mtu=record.mtu,
            interface=record.interface,
            on_link=tuple(parse_prefix(text) for text in record.on_link),
            features=frozenset(record.features),
            routes=tuple(parse_prefix(text) for text in record.routes),
        )

    host: Host = read_record(value, HostRecord, convert)
    return host


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
