"""Records about a host's life: that it lives, that it was removed, and what happened while it was away."""

from typing import Annotated

import msgspec

from netagent.model.address import parse_address
from netagent.model.host import Incarnation, RemovedHost
from netagent.model.ids import HostId, NetworkId, parse_name
from netagent.model.network import GoneNetwork
from netagent.reconcile.ports import StoreEntry
from netagent.store.record_format import Header, Hex64, HostText, Text, read_record, updated


class LiveRecord(Header, kw_only=True):
    """``live/<uuid>``."""

    boot: Text = ""
    life: Text = ""
    underlay: tuple[Text, ...] = ()


class RemovedRecord(Header, kw_only=True):
    """``removed/<uuid>``."""

    id: HostText
    name: Text
    time: Text = ""


def encode_live(incarnation: Incarnation) -> bytes:
    """Return the record by which an agent shows that it lives."""
    underlay = tuple(map(str, incarnation.underlay))
    return updated(None, LiveRecord(boot=incarnation.boot, life=incarnation.life, underlay=underlay))


def decode_live(value: bytes) -> Incarnation:
    """Return whose life a record shows, or raise InvalidRecord."""

    def convert(record: LiveRecord) -> Incarnation:
        return Incarnation(
            boot=record.boot, life=record.life, underlay=tuple(parse_address(text) for text in record.underlay)
        )

    incarnation: Incarnation = read_record(value, LiveRecord, convert)
    return incarnation


def encode_removed(removed: RemovedHost) -> bytes:
    """Return the record of a host that an operator removed."""
    return updated(None, RemovedRecord(id=removed.id, name=removed.name, time=removed.time))


def decode_removed(value: bytes) -> RemovedHost:
    """Return the removed host of a record, or raise InvalidRecord."""

    def convert(record: RemovedRecord) -> RemovedHost:
        return RemovedHost(id=HostId(record.id), name=parse_name(record.name, what="host"), time=record.time)

    removed: RemovedHost = read_record(value, RemovedRecord, convert)
    return removed


class GoneRecord(Header, kw_only=True):
    """``gone/<network>``."""

    id: Hex64
    name: Text
    hosts: Annotated[tuple[HostText, ...], msgspec.Meta(max_length=65536)] = ()


def encode_gone(gone: GoneNetwork) -> bytes:
    """Return the record of a network that was removed while hosts of it were away."""
    return updated(None, GoneRecord(id=gone.id, name=gone.name, hosts=gone.hosts))


def decode_gone(value: bytes) -> GoneNetwork:
    """Return the removed network of a record, or raise InvalidRecord."""

    def convert(record: GoneRecord) -> GoneNetwork:
        name = parse_name(record.name, what="network")
        return GoneNetwork(id=NetworkId(record.id), name=name, hosts=tuple(map(HostId, record.hosts)))

    gone: GoneNetwork = read_record(value, GoneRecord, convert)
    return gone


def decode_epoch(entry: StoreEntry | None) -> int:
    """Return how often claims were taken from hosts so far: 0 while nobody's were, or if that cannot be read."""
    if entry is None or not entry.value.isdigit():
        return 0
    return int(entry.value[:18])


def encode_epoch(epoch: int) -> bytes:
    """Return the record of how often claims were taken from hosts."""
    return str(epoch).encode()
