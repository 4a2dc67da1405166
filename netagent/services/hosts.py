"""Hosts: who is in the cluster, who is live, who holds what; and what becomes of one that is gone for good.

A host's claims are taken from it only by an operator. Its record goes first, together with word of it for the host
itself, then what it claimed; from then on claims carry a higher epoch. Repeating a removal that was cut off ends it.
"""

import builtins
from dataclasses import dataclass

from netagent.errors import Conflict, InvalidRequest, NetagentError, NotFound, Unavailable
from netagent.model.host import Host, RemovedHost
from netagent.model.ids import HostId
from netagent.reconcile.ports import Absent, Delete, Guard, Put, Unchanged, Write
from netagent.services.context import Context
from netagent.services.names import natural_key
from netagent.services.requests import HostView
from netagent.services.seizures import seized_claims
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.host_records import decode_epoch, decode_removed, encode_epoch, encode_removed

ATTEMPTS = 50
CLAIMS_AT_ONCE = 50
"""Claims that one transaction gives back: each is guarded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What a host had that is free now."""

    host: HostView
    addresses: int
    endpoints: int


class HostService:
    """The hosts that this one knows, itself included."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def list(self) -> builtins.list[HostView]:
        """Return all hosts, sorted by name."""
        snapshot = self._context.snapshot()
        own = snapshot.host
        hosts = {**snapshot.hosts, own.id: own}
        return sorted(map(self._view, hosts.values()), key=lambda view: natural_key(view.host.name))

    def _view(self, host: Host) -> HostView:
        snapshot = self._context.snapshot()
        is_self = host.id == snapshot.host.id
        published = [e for a in self._context.stores.all for e in a.view.remote_endpoints.get(host.id, ())]
        endpoints = published if not is_self else [e for e in snapshot.endpoints.values() if e.in_kernel]
        held = tuple(snapshot.claims.held_by(host.id))
        cut_off = snapshot.cut_off if is_self else frozenset()
        return HostView(
            host=host,
            live=host.id in snapshot.live,
            is_self=is_self,
            blocks=tuple((snapshot.networks[b.network_id], b) for holding in held for b in holding.blocks),
            fixed=tuple(claim for holding in held for claim in holding.fixed),
            endpoints=tuple(sorted(endpoints, key=lambda e: natural_key(e.container_name))),
            networks=snapshot.networks,
            conflicts=tuple(sorted(e.container_name for e in endpoints if e.id in cut_off)),
            problems=(
                *self._context.knowledge.path_problems.get(host.id, ()),
                *(self._context.knowledge.host_problems if is_self else ()),
            ),
            seized=seized_claims(self._context.stores) if is_self else (),
        )

    def find(self, name: str) -> HostView:
        """Return the host that ``name`` means: a name, or the beginning of an id that no other host's has."""
        return self._view(self._find(name))

    def _find(self, name: str) -> Host:
        hosts = [view.host for view in self.list()]
        found = [h for h in hosts if h.id == name] or [h for h in hosts if h.name == name]
        found = found or [h for h in hosts if len(name) >= 4 and h.id.startswith(name)]
        if len(found) > 1:
            ids = ", ".join(host.id for host in found)
            raise InvalidRequest(f"host {name} is ambiguous: {ids}", hint="give the id")
        if not found:
            raise NotFound(f"host {name} not found", hint="netagent host ls shows those there are")
        return found[0]

    # Removing

    async def remove(self, name: str, *, force: bool = False) -> Removal:
        """Take a host that is gone for good out of the cluster: its record and everything that it claims.

        A live one is refused unless ``force``; it joins anew at once, and keeps what nobody else has claimed by then.
        """
        view = self._view(self._find_to_remove(name))
        host = view.host
        if view.is_self:
            raise Conflict(f"host {host.name} is this one", hint="run netagent host rm on another host")
        if view.live and not force:
            raise Conflict(
                f"host {host.name} is live",
                hint="stop its agent and wait 15 s; with --force its claims are taken from it all the same",
            )
        access = self._context.stores.cluster
        await self._strike(access, host, force=force)
        await self._take_claims(access, host.id)
        self._context.events.publish("host", "remove", host.id, name=host.name)
        return Removal(host=view, addresses=len(view.fixed), endpoints=len(view.endpoints))

    def _find_to_remove(self, name: str) -> Host:
        try:
            return self._find(name)
        except NotFound:
            removed = next((r for r in self._removed() if name in (r.name, r.id)), None)
            if removed is None:
                raise
            return Host(id=removed.id, name=removed.name, underlay=(), mtu=0)

    def _removed(self) -> builtins.list[RemovedHost]:
        """Return the hosts that were removed and have not come back."""
        found: builtins.list[RemovedHost] = []
        for key, entry in self._context.stores.cluster.mirror.entries.items():
            if key.startswith(keys.REMOVED):
                try:
                    found.append(decode_removed(entry.value))
                except NetagentError:
                    continue
        return found

    async def _strike(self, access: StoreAccess, host: Host, *, force: bool) -> None:
        """Exchange a host's record for the word that it was removed, if it is as dead as this host believes."""
        key, live, removed = keys.host_key(host.id), keys.live_key(host.id), keys.removed_key(host.id)
        for _ in range(ATTEMPTS):
            entry = access.entry(key)
            if entry is None:
                return
            if not force and access.entry(live) is not None:
                raise Conflict(f"host {host.name} has come back", hint="netagent host ls")
            epoch = access.entry(keys.EPOCH)
            guards: builtins.list[Guard] = [
                Unchanged(key=key, revision=entry.revision),
                Absent(key=keys.EPOCH) if epoch is None else Unchanged(key=keys.EPOCH, revision=epoch.revision),
            ]
            writes: builtins.list[Write] = [
                Delete(key=key),
                Put(key=keys.EPOCH, value=encode_epoch(decode_epoch(epoch) + 1)),
                Put(
                    key=removed,
                    value=encode_removed(RemovedHost(id=host.id, name=host.name, time=self._context.now())),
                ),
            ]
            if not force:
                guards.append(Absent(key=live))
            if await access.commit(guards, writes):
                return
        raise Unavailable(f"host {host.name} is changed by others all the time", hint="try again")

    async def _take_claims(self, access: StoreAccess, host_id: HostId) -> None:
        for _ in range(ATTEMPTS):
            claims = self._claims_of(access, host_id)
            if not claims:
                return
            for start in range(0, len(claims), CLAIMS_AT_ONCE):
                some = claims[start : start + CLAIMS_AT_ONCE]
                await access.commit([access.unchanged(key) for key in some], [Delete(key=key) for key in some])
        raise Unavailable(f"the claims of host {host_id} come again and again", hint="is its agent running?")

    def _claims_of(self, access: StoreAccess, host_id: HostId) -> builtins.list[str]:
        """Return the keys of all claims of a host that the store has, and of the endpoints it published."""
        view = access.view
        claims = [keys.block_key(b.network_id, b.prefix) for held in view.claims.held_by(host_id) for b in held.blocks]
        claims += [key for key, claim in view.fixed_records.items() if claim.owner == host_id]
        published = keys.own_endpoints_prefix(host_id)
        claims += [key for key in access.mirror.entries if key.startswith(published)]
        return [key for key in claims if access.entry(key) is not None]
