"""Networks that Docker made, shared by the dockerds of several hosts: the last one that leaves removes the network.

A label of the network's record names the hosts that have it. Who joins and who removes write the same record, each
only as it last saw it, so no network goes away under a dockerd that has just joined it.
"""

import logging
from dataclasses import replace
from types import MappingProxyType

from netagent.errors import Conflict, NetagentError, NotFound, Unavailable
from netagent.model.network import Network, NetworkState
from netagent.reconcile.ports import Put
from netagent.services.context import Context
from netagent.services.network_removal import NetworkRemovalService
from netagent.services.networks import ATTEMPTS
from netagent.store import keys
from netagent.store.network_records import encode_network

log = logging.getLogger("netagent.docker")

ORIGIN_LABEL = "netagent.docker"
"""The label of networks that Docker made. It names the hosts whose dockerd has them; with the last one they go."""

GONE_WITHIN_S = 5.0
"""How long a network that is being deleted is waited for; a call of dockerd's may take twice as long."""


class DockerShares:
    """Which networks this host's dockerd shares with others."""

    def __init__(self, context: Context, removal: NetworkRemovalService) -> None:
        self._context = context
        self._removal = removal

    async def join(self, network: Network) -> bool:
        """Note that this host has a network; False if it is gone or going."""
        noted = await self._note(network, is_used=True)
        return noted is not None and noted.state is NetworkState.ACTIVE

    async def gone(self, network: Network) -> None:
        """Wait until a network that is being deleted is gone; Conflict if it takes long."""
        access, name = self._context.stores.of(network), network.name
        if not await access.mirror.wait_until(lambda: self._present(network) is None, within=GONE_WITHIN_S):
            raise Conflict(f"network {name} is being deleted", hint="wait until it is gone")

    async def leave(self, network: Network) -> None:
        """Let go of a network that Docker made; the last host removes it, unless others than Docker use it."""
        try:
            noted = await self._note(network, is_used=False)
            if noted is None or ORIGIN_LABEL not in noted.labels or _has_users(noted):
                return
            async for _ in self._removal.remove(network.name, unless=_has_users):
                pass
        except (Conflict, NotFound) as error:
            log.info("network %s stays: %s", network.name, error)
        except NetagentError as error:
            log.warning("network %s is not gone yet: %s", network.name, error)

    def _present(self, network: Network) -> Network | None:
        return self._context.snapshot().networks.get(network.id)

    async def _note(self, network: Network, *, is_used: bool) -> Network | None:
        """Write down, in a network that Docker made, whether this host has it; return the network as it is then.

        None if there is no such network any more; one that is going stays as it is.
        """
        own = self._context.host.id
        access = self._context.stores.of(network)
        for _ in range(ATTEMPTS):
            entry = access.entry(keys.network_key(network.name))
            current = self._present(network)
            if entry is None or current is None:
                return None
            if ORIGIN_LABEL not in current.labels or current.state is NetworkState.DELETING:
                return current
            others = {user for user in current.labels[ORIGIN_LABEL].split(",") if user} - {own}
            users = ",".join(sorted(others | {own} if is_used else others))
            noted = replace(current, labels=MappingProxyType({**current.labels, ORIGIN_LABEL: users}))
            record = encode_network(noted, entry.value)
            if record == entry.value:
                return noted
            if await access.commit((access.unchanged(entry.key),), (Put(key=entry.key, value=record),)):
                return noted
        raise Unavailable(f"network {network.name} is changed by others all the time", hint="try again")


def _has_users(network: Network) -> bool:
    return bool(network.labels.get(ORIGIN_LABEL))
