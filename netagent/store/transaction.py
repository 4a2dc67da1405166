"""What every store demands of a transaction before it looks at it, and what its guards say of known entries."""

from collections.abc import Mapping, Sequence

from netagent.errors import Bug
from netagent.reconcile.ports import Absent, AbsentBelow, Guard, StoreEntry, Unchanged, Write

TRANSACTION_LIMIT = 127
"""Most guards, and most writes, of one transaction: etcd takes 128 of each (``--max-txn-ops``), ours adds one."""


def check_transaction(guards: Sequence[Guard], writes: Sequence[Write]) -> None:
    """Raise Bug for a transaction that etcd would refuse, so that the embedded store refuses it too."""
    if max(len(guards), len(writes)) > TRANSACTION_LIMIT:
        raise Bug(
            f"transaction of {len(guards)} guards and {len(writes)} writes; the limit is {TRANSACTION_LIMIT} each"
        )
    for guard in guards:
        # etcd would take 0 for "absent".
        if isinstance(guard, Unchanged) and guard.revision < 1:
            raise Bug(f"guard on {guard.key!r} names revision {guard.revision}", key=guard.key)
    seen: set[str] = set()
    for write in writes:
        if write.key in seen:
            raise Bug(f"transaction writes {write.key!r} twice", key=write.key)
        seen.add(write.key)


def all_hold(guards: Sequence[Guard], entries: Mapping[str, StoreEntry]) -> bool:
    """Tell whether ``guards`` would let a transaction pass if ``entries`` were what the store holds."""
    for guard in guards:
        match guard:
            case Absent(key=key):
                holds = key not in entries
            case Unchanged(key=key, revision=revision):
                holds = key in entries and entries[key].revision == revision
            case AbsentBelow(prefix=prefix):
                holds = not any(key.startswith(prefix) for key in entries)
        if not holds:
            return False
    return True
