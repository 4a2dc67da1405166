"""What all records have in common: JSON that is read trusting nothing.

Every record carries ``v`` (the layout's version) and ``requires`` (features without which it must not be used).
An unknown key is kept when a record is rewritten (``updated``); an unknown required feature, another version, a wrong
type, a wrong size or an address out of place refuses the record with ``InvalidRecord``, never more than that one.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import msgspec

from netagent.errors import InvalidRequest, NetagentError
from netagent.plan.mtu import MAXIMUM_MTU, MINIMUM_MTU

VERSION = 1
SUPPORTED_FEATURES: frozenset[str] = frozenset()
SIZE_LIMIT = 1024 * 1024
"""Bytes of a record; an endpoint with 1,000 published ports in no order has 100 kB."""
_T = TypeVar("_T", bound="Header")
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Hex64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
HostText = Annotated[str, msgspec.Meta(pattern="^[0-9a-f-]{36}$")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Vni = Annotated[int, msgspec.Meta(ge=1, le=(1 << 24) - 1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
"""JSON's numbers have no end; in answers to clients this one has 64 bits."""
Mtu = Annotated[int, msgspec.Meta(ge=MINIMUM_MTU[4], le=MAXIMUM_MTU)]
UnderlayMtu = Annotated[int, msgspec.Meta(ge=576, le=1 << 20)]
"""Bytes. Every host must take datagrams of 576 octets (RFC 791, 3.1); less would leave no room for a tunnel."""


class InvalidRecord(NetagentError):
    """A record that must not be used; the others are not affected."""


class Header(msgspec.Struct, kw_only=True, omit_defaults=False):
    """What every record begins with."""

    v: int = VERSION
    requires: list[Text] = []


def updated(old: bytes | None, record: Header) -> bytes:
    """Return ``record`` as JSON, with the keys of ``old`` that this version does not know."""
    return keeping_unknown(old, msgspec.to_builtins(record))


def keeping_unknown(old: bytes | None, fresh: dict[str, Any]) -> bytes:
    """Return ``fresh`` as JSON, with the keys of the JSON object ``old`` that it does not have."""
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
        try:
            record = msgspec.json.decode(value, type=record_type)
        except msgspec.ValidationError:
            # Of another version, perhaps, or in need of more than this one has: that is the better reason.
            _check_header(msgspec.json.decode(value, type=Header))
            raise
        _check_header(record)
        return convert(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidRequest) as error:
        raise InvalidRecord(f"record is not valid: {error}") from error


def _check_header(header: Header) -> None:
    if header.v != VERSION:
        raise InvalidRecord(f"record has version {header.v}, this agent knows {VERSION}", hint="upgrade this agent")
    unknown = set(header.requires) - SUPPORTED_FEATURES
    if unknown:
        raise InvalidRecord(f"record requires {', '.join(sorted(unknown))}", hint="upgrade this agent")
