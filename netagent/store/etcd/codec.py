"""Keys, guards and writes as etcd's messages, and its key-values as entries.

Keys are UTF-8; bytes of others that are not are carried through unharmed.
"""

from typing import assert_never

from netagent.reconcile.ports import Absent, AbsentBelow, Change, Delete, Guard, Put, StoreEntry, Unchanged, Write
from netagent.store.etcd.proto import etcd_pb2 as pb


def encode_key(key: str) -> bytes:
    """Return ``key`` as bytes."""
    return key.encode(errors="surrogateescape")


def decode_key(key: bytes) -> str:
    """Return ``key`` as text."""
    return key.decode(errors="surrogateescape")


def range_end(prefix: bytes) -> bytes:
    """Return the first key after all that begin with ``prefix``; one NUL byte stands for the end of all keys."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,)) if head else b"\0"


def encode_prefix(prefix: str) -> tuple[bytes, bytes]:
    """Return ``key`` and ``range_end`` of the range of all keys that begin with ``prefix``."""
    start = encode_key(prefix)
    return start or b"\0", range_end(start)


def decode_entry(kv: pb.KeyValue) -> StoreEntry:
    """Return ``kv`` as an entry."""
    return StoreEntry(key=decode_key(kv.key), value=kv.value, revision=kv.mod_revision)


def decode_event(event: pb.Event) -> Change:
    """Return ``event`` as a change."""
    value = event.kv.value if event.type == pb.Event.PUT else None
    return Change(key=decode_key(event.kv.key), value=value, revision=event.kv.mod_revision)


def compare_revision(key: bytes, revision: int) -> pb.Compare:
    """Return the condition that ``key`` was last changed at ``revision``, or with 0 that it is absent."""
    return pb.Compare(key=key, target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=revision)


def encode_guard(guard: Guard) -> pb.Compare:
    """Return ``guard`` as a condition."""
    match guard:
        case Absent(key=key):
            return compare_revision(encode_key(key), 0)
        case Unchanged(key=key, revision=revision):
            return compare_revision(encode_key(key), revision)
        case AbsentBelow(prefix=prefix):
            start, end = encode_prefix(prefix)
            compare = compare_revision(start, 0)
            compare.range_end = end
            return compare
        case _:
            assert_never(guard)


def encode_write(write: Write, lease_id: int) -> pb.RequestOp:
    """Return ``write`` as an operation; a leased one hangs on ``lease_id``."""
    match write:
        case Put(key=key, value=value, leased=leased):
            return encode_put(encode_key(key), value, lease_id if leased else 0)
        case Delete(key=key):
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=encode_key(key)))
        case _:
            assert_never(write)


def encode_put(key: bytes, value: bytes, lease_id: int) -> pb.RequestOp:
    """Return the operation that sets ``key``."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease_id))
