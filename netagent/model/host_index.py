"""All hosts at one moment, by id, underlay address and MTU."""

from collections.abc import Iterable, Iterator, Mapping, Set, ValuesView
from dataclasses import dataclass, field

from netagent.model.address import Address
from netagent.model.host import Host
from netagent.model.ids import HostId
from netagent.model.persistent_map import PersistentMap, PersistentSet


@dataclass(frozen=True, slots=True, eq=False)
class Hosts(Mapping[HostId, Host]):
    """Never changes: ``updated`` returns another that shares with it all but what is different.

    ``rows`` are the hosts by id, ``ends`` the ids of those with an underlay address, ``mtus`` of those with an MTU.
    """

    rows: PersistentMap[HostId, Host] = field(default_factory=PersistentMap)
    ends: PersistentMap[Address, frozenset[HostId]] = field(default_factory=PersistentMap)
    mtus: Mapping[int, PersistentSet[HostId]] = field(default_factory=dict)

    @classmethod
    def of(cls, hosts: Iterable[Host]) -> "Hosts":
        """Return ``hosts`` by id, underlay address and MTU."""
        return cls().updated(hosts)

    def updated(self, put: Iterable[Host] = (), gone: Iterable[HostId] = ()) -> "Hosts":
        """Return these without the hosts ``gone``, absent ones too, and with those of ``put`` in place of theirs."""
        new = {host.id: host for host in put}
        lost = [host for identity in {*gone, *new} if (host := self.rows.get(identity)) is not None]
        ends: dict[Address, frozenset[HostId]] = {}
        for host in lost:
            for end in host.underlay:
                ends[end] = ends.get(end, self.at(end)) - {host.id}
        for host in new.values():
            for end in host.underlay:
                ends[end] = ends.get(end, self.at(end)) | {host.id}
        left = [end for end, identities in ends.items() if not identities]
        return Hosts(
            self.rows.updated(new, gone=(host.id for host in lost)),
            self.ends.updated({end: identities for end, identities in ends.items() if identities}, gone=left),
            self._regrouped(new.values(), lost),
        )

    def _regrouped(self, put: Iterable[Host], gone: Iterable[Host]) -> dict[int, PersistentSet[HostId]]:
        new, old = _by_mtu(put), _by_mtu(gone)
        groups = dict(self.mtus)
        for mtu in new.keys() | old.keys():
            groups[mtu] = groups.get(mtu, PersistentSet()).updated(new.get(mtu, ()), gone=old.get(mtu, ()))
        return {mtu: group for mtu, group in groups.items() if group}

    def joined(self, other: "Hosts") -> "Hosts":
        """Return these and the ``other``, whose hosts count where both have one."""
        if len(other) <= len(self):
            return self.updated(other.values()) if other else self
        return other.updated(host for identity, host in self.rows.items() if identity not in other)

    def at(self, address: Address) -> frozenset[HostId]:
        """Return the hosts with an underlay address."""
        return self.ends.get(address, frozenset())

    def narrower(self, mtu: int) -> Iterator[tuple[int, Set[HostId]]]:
        """Yield each MTU below ``mtu`` that hosts have, the smallest first, with these hosts."""
        yield from ((each, self.mtus[each]) for each in sorted(self.mtus) if each < mtu)

    def changed(self, other: "Hosts") -> set[HostId]:
        """Return the hosts that differ from the ``other``, or that are in one alone."""
        return self.rows.changed_keys(other.rows)

    def __getitem__(self, identity: HostId) -> Host:
        return self.rows[identity]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[HostId]:
        return iter(self.rows)

    def values(self) -> ValuesView[Host]:
        """Return the hosts."""
        return self.rows.values()


def _by_mtu(hosts: Iterable[Host]) -> dict[int, list[HostId]]:
    found: dict[int, list[HostId]] = {}
    for host in hosts:
        found.setdefault(host.mtu, []).append(host.id)
    return found
