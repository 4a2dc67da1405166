"""What every store demands of a transaction before it looks at it."""

from collections.abc import Sequence

from netagent.errors import Bug
from netagent.reconcile.ports import Guard, Unchanged, Write

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
