"""Claims of this host that others overwrote: etcd's roles cannot keep them from it, so it is noticed and told.

A claim changes hands in two ways only: its owner deletes it, or an operator's ``host rm`` does and raises the epoch.
Anything else is a fault or an attack: nothing on this host is changed by it but what would collide.
"""

from netagent.services.context import Context
from netagent.services.stores import Stores
from netagent.store import keys


def seized_claims(stores: Stores) -> tuple[str, ...]:
    """Return the overwritten claims as ``blocks/<network>/<block> by <host>``."""
    found = (item for access in stores.all for item in access.view.seized.items())
    return tuple(sorted(f"{key.removeprefix(keys.ROOT)} by {host}" for key, host in found))


class Seizures:
    """Tells of each overwritten claim once, as an event."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._told: frozenset[str] = frozenset()

    def store_changed(self, changed: frozenset[str]) -> None:
        """Look at the claims anew."""
        if not any(key.startswith((keys.BLOCKS, keys.ADDRESSES)) for key in changed):
            return
        found = frozenset(seized_claims(self._context.stores))
        for text in sorted(found - self._told):
            claim, _, host = text.rpartition(" by ")
            self._context.events.publish("host", "claim-seized", self._context.host.id, claim=claim, by=host)
        self._told = found
