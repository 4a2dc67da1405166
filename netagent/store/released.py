"""Addresses given back a short while ago, which rest before somebody else gets them.

Neighbours, connection tables and caches of names still know the former owner for a while. The table lies in the
journal's database and is written in its transactions, so a restart shortens no rest.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from netagent.model.address import Address, parse_address
from netagent.model.endpoint import Endpoint
from netagent.model.ids import NetworkId

HOLD_DOWN_S = 60.0
"""How long an address rests where nothing else is configured."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS released (network TEXT NOT NULL, address TEXT NOT NULL, at REAL NOT NULL,
                                     PRIMARY KEY (network, address)) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """How long addresses rest, in seconds, and the clock: seconds since the epoch, for it must outlive a restart."""

    hold_down_s: float = HOLD_DOWN_S
    clock: Callable[[], float] = time.time


class ReleasedAddresses:
    """The table ``released`` of one database. The caller holds the transactions."""

    def __init__(self, database: sqlite3.Connection, rest: Rest) -> None:
        self._database = database
        self._rest = rest
        self._at: dict[tuple[NetworkId, Address], float] = {}

    def load(self) -> None:
        """Read the table. What lies in the future, because the clock was set back, begins to rest now."""
        now = self._rest.clock()
        for network, address, at in self._database.execute("SELECT network, address, at FROM released ORDER BY at"):
            self._at[NetworkId(network), parse_address(address)] = min(at, now)

    def resting(self, network_id: NetworkId) -> Mapping[Address, float]:
        """Return the addresses of a network that rest still, and since when."""
        earliest = self._rest.clock() - self._rest.hold_down_s
        return {address: at for (network, address), at in self._at.items() if network == network_id and at > earliest}

    def note(self, before: Iterable[Endpoint | None], after: Iterable[Endpoint] = ()) -> None:
        """Let the addresses rest that ``before`` had and ``after`` has not; forget those that rested long enough."""
        kept = {(e.network_id, a.address) for e in after for a in e.addresses}
        had = {(e.network_id, a.address) for e in before if e is not None for a in e.addresses}
        now = self._rest.clock()
        earliest = now - self._rest.hold_down_s
        # In the order of their release.
        gone = set(takewhile(lambda key: self._at[key] <= earliest, self._at)) | (self._at.keys() & (kept | had))
        if gone:
            self._delete(gone)
        if self._rest.hold_down_s > 0 and had - kept:
            rows = [(network, str(address), now) for network, address in had - kept]
            self._database.executemany("INSERT OR REPLACE INTO released VALUES (?, ?, ?)", rows)
            self._at.update((key, now) for key in had - kept)

    def forget_network(self, network_id: NetworkId) -> None:
        """Forget the addresses of a network that is gone."""
        self._delete([key for key in self._at if key[0] == network_id])

    def _delete(self, keys: Iterable[tuple[NetworkId, Address]]) -> None:
        doomed = tuple(keys)
        rows = [(network, str(address)) for network, address in doomed]
        self._database.executemany("DELETE FROM released WHERE network = ? AND address = ?", rows)
        for key in doomed:
            del self._at[key]
