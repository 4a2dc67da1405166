"""What the journal keeps of the store for the sake of endpoints here, should the store lose it.

A network's record and this host's blocks of it are written there with the network's first endpoint
(``EndpointService.records_of``). Once the store has lost the network, what else was known of it is written too: its
peers' blocks, addresses and hosts. A restart forgets none of it, and neither does a crash while it is written back.
"""

from netagent.model.ids import HostId, NetworkId
from netagent.services.stores import Stores
from netagent.store import keys
from netagent.store.journal import Journal
from netagent.store.network_records import decode_network
from netagent.store.records import decode_block


def keep_orphans(journal: Journal, stores: Stores) -> None:
    """Write to the journal what this host uses and the stores do not have any more."""
    orphans = {key: record for access in stores.all for key, record in access.view.orphans.items()}
    fresh = {key: record for key, record in orphans.items() if journal.adopted.get(key) != record}
    if fresh:
        journal.adopt(fresh)


class Keeper:
    """Keeps the journal's part of the stores as large as needed. One per agent; asked after every change."""

    def __init__(self, journal: Journal, stores: Stores, own_host: HostId) -> None:
        self._journal = journal
        self._stores = stores
        self._own_host = own_host
        self._own: dict[str, tuple[bytes, NetworkId | None]] = {}

    def keep(self) -> None:
        """Write what was lost; see ``keep_orphans``."""
        keep_orphans(self._journal, self._stores)

    def disown(self) -> None:
        """Forget records of networks without endpoints here, and those of others that a store has, or lets go."""
        adopted, known = self._journal.adopted, self._own
        for key, value in adopted.items():
            # They hardly ever change, and are looked at after every attach.
            if key not in known or known[key][0] is not value:
                known[key] = value, self._network_of(key, value)
        used = self._journal.endpoints.networks
        orphaned = {key for access in self._stores.all for key in access.view.orphaned}
        surplus = [key for key in adopted if key not in orphaned and known[key][1] not in used]
        if surplus:
            self._own = {}
            self._journal.disown(surplus)

    def _network_of(self, key: str, value: bytes) -> NetworkId | None:
        """Return the network whose first endpoint brought this record here; None if it was kept when it was lost."""
        if key.startswith(keys.NETWORKS):
            return decode_network(value).id
        if not key.startswith(keys.BLOCKS):
            return None
        block = decode_block(value)
        return block.network_id if block.owner == self._own_host else None
