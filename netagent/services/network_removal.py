"""A network is removed in steps that every host takes.

It goes by its ``deleting`` record: each host that holds blocks takes its part out of the kernel and gives the blocks
back (``services/publisher.py``), and the record goes last, under the guard that no block is left.
"""

import asyncio
import builtins
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from netagent.errors import Conflict, Unavailable
from netagent.model.ids import NetworkId, short
from netagent.model.network import GoneNetwork, Network, NetworkState
from netagent.reconcile.ports import Absent, Delete, Put, Unchanged
from netagent.services.context import Context
from netagent.services.network_transactions import finish_removal
from netagent.services.networks import ATTEMPTS, NetworkService
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.host_records import encode_gone
from netagent.store.network_records import encode_network

log = logging.getLogger("netagent.networks")

REMOVE_PATIENCE_S = 20.0
"""How long a removal waits for the other hosts before it says which ones did not answer."""


class NetworkRemovalService:
    """Removes networks that this host knows."""

    def __init__(self, context: Context, networks: NetworkService) -> None:
        self._context = context
        self._networks = networks
        self._taken: dict[str, builtins.list[str]] = {}

    async def remove(
        self, name: str, *, force: bool = False, unless: Callable[[Network], bool] = lambda network: False
    ) -> AsyncIterator[tuple[str, ...]]:
        """Remove a network; yield the names of the hosts that still hold blocks of it, until none does.

        With ``force`` the blocks of hosts that are not live are taken from them: they learn of it when they return.
        Conflict if ``unless`` holds for the record that would be marked.
        """
        network = self._networks.find(name)
        if network.is_predefined:
            raise Conflict(f"{network.name} is a pre-defined network and cannot be removed")
        self._refuse_in_use(network, force=force)
        access = self._context.stores.of(network)
        await self._mark_deleting(access, network, unless)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REMOVE_PATIENCE_S
        while waiting := self._holders(network):
            if force:
                await self._take_from_dead(access, network)
            yield tuple(sorted(waiting.values()))
            if loop.time() > deadline:
                raise Unavailable(
                    f"network {network.name} is being deleted, but {', '.join(sorted(waiting.values()))} did not"
                    " give its blocks back",
                    hint=f"start the agent there, or netagent network rm -f {network.name} if the host is gone",
                )
            await access.mirror.wait_until(lambda: self._holders(network) != waiting, within=1.0)
        while network.id in self._context.snapshot().networks:
            if loop.time() > deadline:
                raise Unavailable(
                    f"the record of network {network.name} is not gone", hint=f"netagent network rm {network.name}"
                )
            await finish_removal(access, network)
            await access.mirror.wait_until(lambda: network.id not in self._context.snapshot().networks, within=0.5)
        self._taken[name] = self.ignorant_of(network.id)
        self._context.journal.forget_network(network.id)
        self._context.events.publish("network", "destroy", network.id, name=network.name)

    def _refuse_in_use(self, network: Network, *, force: bool) -> None:
        """Refuse while containers are connected; with ``force`` those of hosts that are not live do not count."""
        live = self._context.snapshot().live | {self._context.host.id}
        connected = [e for e, host in self._networks.endpoints_of(network) if host.id in live or not force]
        users = [f'name:"{e.container_name}" id:"{short(e.container_id)}"' for e in connected]
        if users:
            hint = "remove or detach these containers first"
            if any(host.id not in live for _, host in self._networks.endpoints_of(network)) and not force:
                hint += f"; those of hosts that are away: netagent network rm -f {network.name}"
            raise Conflict(
                f"error while removing network: network {network.name} has active endpoints ({', '.join(users)})",
                hint=hint,
            )

    async def _mark_deleting(self, access: StoreAccess, network: Network, unless: Callable[[Network], bool]) -> None:
        key = keys.network_key(network.name)
        for _ in range(ATTEMPTS):
            entry = access.entry(key)
            if entry is None:
                return
            if unless(network):
                raise Conflict(f"network {network.name} is in use again", hint="remove it where it is used first")
            record = encode_network(replace(network, state=NetworkState.DELETING), entry.value)
            writes = (Put(key=key, value=record), Put(key=keys.GENERATION, value=network.id.encode()))
            if await access.commit((access.unchanged(key),), writes):
                return
            network = self._networks.find(network.id)
        raise Unavailable(f"network {network.name} is changed by others all the time", hint="try again")

    def _holders(self, network: Network) -> dict[str, str]:
        blocks = self._context.snapshot().blocks_in(network.id)
        return {b.owner: host.name if (host := self._networks.holder(b)) else b.owner for b in blocks}

    async def _take_from_dead(self, access: StoreAccess, network: Network) -> None:
        snapshot = self._context.snapshot()
        await self._leave_word(access, network)
        for block in snapshot.blocks_in(network.id):
            if block.owner not in snapshot.live and block.owner != snapshot.host.id:
                key = keys.block_key(network.id, block.prefix)
                await access.commit((access.unchanged(key),), (Delete(key=key),))
                published = f"{keys.own_endpoints_prefix(block.owner)}{network.id}/"
                for record in [record for record in access.mirror.entries if record.startswith(published)]:
                    await access.commit((), (Delete(key=record),))

    def taken_from(self, name: str) -> builtins.list[str]:
        """Return from whom the network was taken that was just removed as ``name``; ask once, after ``remove``."""
        return self._taken.pop(name, [])

    def ignorant_of(self, network_id: NetworkId) -> builtins.list[str]:
        """Return the names of the hosts that had part in a removed network and do not know yet that it is gone."""
        gone = self._context.stores.cluster.view.gone.get(network_id)
        hosts = self._context.snapshot().hosts
        return sorted(host.name if (host := hosts.get(i)) else str(i) for i in (gone.hosts if gone else ()))

    async def _leave_word(self, access: StoreAccess, network: Network) -> None:
        """Write down which hosts are away and have part in a network, so that they learn of its end one day."""
        snapshot = self._context.snapshot()
        parts = {block.owner for block in snapshot.blocks_in(network.id)}
        parts |= {host.id for _, host in self._networks.endpoints_of(network)}
        absent = parts - snapshot.live - {snapshot.host.id}
        key = keys.gone_key(network.id)
        while True:
            entry = access.entry(key)
            known = set(access.view.gone[network.id].hosts) if network.id in access.view.gone else set()
            if absent <= known:
                return
            gone = GoneNetwork(id=network.id, name=network.name, hosts=tuple(sorted(absent | known)))
            guard = Absent(key=key) if entry is None else Unchanged(key=key, revision=entry.revision)
            if await access.commit((guard,), (Put(key=key, value=encode_gone(gone)),)):
                names = self.ignorant_of(network.id)
                log.warning("network %s is taken from hosts that do not answer: %s", network.name, ", ".join(names))
                self._context.events.publish("network", "take", network.id, name=network.name, hosts=",".join(names))
