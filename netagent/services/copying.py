"""What the hosts of a cluster share, copied out of a store, into one, or from a host's own store into its cluster's.

Copied are networks across hosts with all claims in them, and hosts: what a cluster cannot make up again. Liveness and
endpoints are written by the hosts themselves, and networks of one host stay on it. Claims are written before the
networks they are in, so that no block is free for a moment, and nothing that a store has is overwritten.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from netagent.errors import Conflict, InvalidRequest
from netagent.ipam.pools import refuse_overlap
from netagent.model.endpoint_index import Endpoints
from netagent.model.host import HostFacts
from netagent.model.ids import NetworkId
from netagent.model.network import Network, Scope
from netagent.reconcile.ports import Absent, Delete, Put, StoreEntry, Unchanged
from netagent.services.context import Context
from netagent.services.network_numbers import free_number
from netagent.services.restoring import put_network, raise_epoch
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.network_records import encode_network
from netagent.store.view import ClusterView

log = logging.getLogger("netagent.copying")

_CLAIMS = (keys.BLOCKS, keys.ADDRESSES)
_RECORDS = (keys.HOSTS, keys.NETWORKS, keys.NUMBERS, keys.GONE, *_CLAIMS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The records of the store ``cluster`` as of ``revision``, by key below ``keys.ROOT``."""

    cluster: str
    revision: int
    records: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was written: the names of networks, how many other records; and the keys that were there differently."""

    networks: tuple[str, ...]
    records: int
    kept: tuple[str, ...]


class CopyService:
    """Answers ``netagent store export`` and ``import``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def export(self) -> Copy:
        """Return what the cluster's store holds now of what hosts share."""
        access = self._context.stores.cluster
        await access.hear_anew()
        found = {key: entry.value for key, entry in access.mirror.entries.items()}
        records = {key.removeprefix(keys.ROOT): value for key, value in self._shared(found).items()}
        return Copy(cluster=access.mirror.cluster_id, revision=access.mirror.revision, records=records)

    async def restore(self, records: Mapping[str, bytes], *, force: bool = False) -> Copied:
        """Write what was exported into the cluster's store.

        Conflict if that has networks or claims already, other than these; with ``force`` what it lacks is added.
        InvalidRequest names a record that cannot be used.
        """
        access = self._context.stores.cluster
        await access.hear_anew()
        fresh = {f"{keys.ROOT}{key}": value for key, value in records.items()}
        view = self._checked(fresh)
        present = self._shared({key: entry.value for key, entry in access.mirror.entries.items()})
        others = sorted(k for k, v in present.items() if not k.startswith(keys.HOSTS) and fresh.get(k) != v)
        if others and not force:
            raise Conflict(
                f"the store is not empty: it has {len(others)} other records, such as {others[0]}",
                hint="--force adds what it lacks and overwrites nothing",
            )
        self._refuse_overlaps(access, view.networks.values())
        return await self._write(access, view, fresh)

    async def carry_over(self) -> Copied:
        """Move this host's own networks across hosts, from the time before it joined the cluster, into its store.

        They keep their containers and addresses. One whose number is taken there gets another one: no other host
        has ever seen it.
        """
        stores = self._context.stores
        if stores.local is stores.cluster:
            raise InvalidRequest("this host has joined no cluster", hint="start the agent with --store etcd://...")
        await stores.cluster.hear_anew()
        entries = stores.local.mirror.entries
        own = self._shared({key: entry.value for key, entry in entries.items()})
        own = {key: value for key, value in own.items() if not key.startswith((keys.HOSTS, keys.GONE))}
        view = self._checked(own)
        self._refuse_overlaps(stores.cluster, view.networks.values())
        fresh = self._renumbered(stores.cluster, view, own)
        copied = await self._write(stores.cluster, self._checked(fresh), fresh)
        await self._let_go(stores.local, view, own)
        return copied

    def _shared(self, entries: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return those of ``entries`` that are copied."""
        view = self._decoded(entries)
        networks = {i: n for i, n in view.networks.items() if n.scope is not Scope.LOCAL and not n.is_predefined}
        names = {keys.network_key(network.name) for network in networks.values()}
        numbers = {keys.number_key(network.vni) for network in networks.values() if network.vni is not None}

        def is_shared(key: str) -> bool:
            if key.startswith(_CLAIMS):
                return _network_of(key, entries[key]) in networks
            return key in names or key in numbers or key.startswith((keys.HOSTS, keys.GONE))

        return {key: value for key, value in sorted(entries.items()) if is_shared(key)}

    def _decoded(self, entries: Mapping[str, bytes]) -> ClusterView:
        view = ClusterView(self._context.host.id, Endpoints)
        view.update(entries, {k: StoreEntry(key=k, value=v, revision=1) for k, v in entries.items()})
        return view

    def _checked(self, records: Mapping[str, bytes]) -> ClusterView:
        for key in records:
            if not key.startswith(_RECORDS):
                raise InvalidRequest(f"record {key} is none that is copied", hint="give what `store export` wrote")
        view = self._decoded(records)
        for key, reason in view.refused.items():
            raise InvalidRequest(f"record {key} cannot be used: {reason}", hint="correct it, or leave it out")
        return view

    def _refuse_overlaps(self, access: StoreAccess, networks: Iterable[Network]) -> None:
        """Raise Conflict for a network whose name or subnet another one has in the store."""
        there = access.view.networks
        present = [n for n in there.values() if keys.network_key(n.name) in access.mirror.entries]
        for network in networks:
            if network.id in there:
                continue
            if any(other.name == network.name for other in present):
                raise Conflict(
                    f"the store has another network {network.name} already", hint="remove one of the two first"
                )
            refuse_overlap(network.subnets, present, HostFacts(interfaces={}, routes=()))

    def _renumbered(self, access: StoreAccess, view: ClusterView, own: Mapping[str, bytes]) -> dict[str, bytes]:
        records = {key: value for key, value in own.items() if not key.startswith(keys.NUMBERS)}
        others = (n for n in access.view.networks.values() if n.id not in view.networks)
        taken = {keys.number_key(network.vni) for network in others if network.vni is not None}
        for key, entry in access.mirror.entries.items():
            if key.startswith(keys.NUMBERS) and _network_of(key, entry.value) not in view.networks:
                taken.add(key)
        for network in view.networks.values():
            if network.vni is None:
                continue
            number = keys.number_key(network.vni)
            if number in taken:
                other = replace(network, vni=free_number(taken))
                assert other.vni is not None
                key, number = keys.network_key(network.name), keys.number_key(other.vni)
                records[key] = encode_network(other, own[key])
                log.info("network %s has number %d now, because %d is taken", network.name, other.vni, network.vni)
            taken.add(number)
            records[number] = network.id.encode()
        return records

    async def _write(self, access: StoreAccess, view: ClusterView, records: Mapping[str, bytes]) -> Copied:
        kept: list[str] = []
        written = 0
        await raise_epoch(
            access, [b.epoch for b in view.claims.blocks] + [claim.epoch for claim in view.fixed_records.values()]
        )
        for key, value in records.items():
            if key.startswith((keys.NETWORKS, keys.NUMBERS)):
                continue
            if await access.commit((Absent(key=key),), (Put(key=key, value=value),)):
                written += 1
            elif _differs(access, key, value):
                kept.append(key)
        names: list[str] = []
        for network in view.networks.values():
            key = keys.network_key(network.name)
            was_there = access.entry(key) is not None
            await put_network(access, network, records[key])
            if not was_there and access.entry(key) is not None:
                names.append(network.name)
                log.info("network %s is in the store", network.name)
            elif _differs(access, key, records[key]):
                kept.append(key)
        return Copied(networks=tuple(sorted(names)), records=written, kept=tuple(sorted(kept)))

    async def _let_go(self, access: StoreAccess, view: ClusterView, records: Mapping[str, bytes]) -> None:
        """Remove from the host's own store what the cluster's has by now, the networks first."""
        there = self._context.stores.cluster.view.networks
        carried = frozenset(identity for identity in view.networks if identity in there)
        access.view.forgo(carried)
        names = {keys.network_key(network.name): network.id for network in view.networks.values()}
        for key in sorted(records, key=lambda key: key not in names):
            owner = names.get(key) or _network_of(key, records[key])
            entry = access.entry(key)
            if owner in carried and entry is not None:
                await access.commit((Unchanged(key=key, revision=entry.revision),), (Delete(key=key),))


def _network_of(key: str, value: bytes) -> NetworkId:
    """Return the network that a claim or a number belongs to."""
    return NetworkId(
        value.decode(errors="replace") if key.startswith(keys.NUMBERS) else key.removeprefix(keys.ROOT).split("/")[1]
    )


def _differs(access: StoreAccess, key: str, value: bytes) -> bool:
    entry = access.entry(key)
    return entry is None or entry.value != value
