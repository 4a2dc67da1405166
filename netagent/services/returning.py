"""What a host finds out when it comes back: networks that were removed, addresses and blocks that others hold by now.

A removed network is taken down here too: its containers lose it, and the hosts that were waited for are told that
this one knows. An endpoint whose address another host holds is not served (``Snapshot.contested``); here that is
said, in the log and as an event. One whose address is still its own gets another block: peers need an own address of
this host to reach it.
"""

import asyncio
import logging
from collections.abc import Mapping

from netagent.errors import NetagentError
from netagent.model.address import Address
from netagent.model.container import ContainerKind
from netagent.model.ids import EndpointId
from netagent.model.network import GoneNetwork, NetworkState, Scope
from netagent.reconcile.ports import Delete, Put, Unchanged
from netagent.services.attachments import AttachmentService
from netagent.services.blocks import BlockService
from netagent.services.containers import ContainerService
from netagent.services.context import Context
from netagent.services.endpoints import EndpointService
from netagent.services.stores import StoreAccess
from netagent.store import keys
from netagent.store.host_records import encode_gone

log = logging.getLogger("netagent.returning")

RETRY_S = 5.0


class ReturningService:
    """One per agent."""

    def __init__(
        self,
        context: Context,
        endpoints: EndpointService,
        containers: ContainerService,
        attachments: AttachmentService,
        blocks: BlockService,
    ) -> None:
        self._context = context
        self._blocks = blocks
        self._endpoints = endpoints
        self._containers = containers
        self._attachments = attachments
        self._wake = asyncio.Event()
        self._told: Mapping[tuple[EndpointId, Address], object] = {}

    def request(self) -> None:
        """Ask for a look soon."""
        self._wake.set()

    async def run(self) -> None:
        """Look whenever asked, until cancelled."""
        said = ""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._tell_contested()
            try:
                await self._leave_gone()
                await self._regain_blocks()
            except NetagentError as error:
                if str(error) != said:
                    log.warning("not all that others took from this host is settled yet: %s", error)
                said = str(error)
                await asyncio.sleep(RETRY_S)
                self._wake.set()
            else:
                said = ""

    def _tell_contested(self) -> None:
        snapshot = self._context.snapshot()
        for (identity, address), holder in snapshot.contested.items():
            endpoint = snapshot.endpoints.get(identity)
            if (identity, address) in self._told or endpoint is None:
                continue
            by = host.name if (host := snapshot.hosts.get(holder)) else str(holder)
            log.error(
                "container %s is cut off: host %s holds its address %s by now (netagent restart %s gives it another)",
                endpoint.container_name,
                by,
                address,
                endpoint.container_name,
            )
            self._context.events.publish(
                "container",
                "conflict",
                endpoint.container_id,
                name=endpoint.container_name,
                address=str(address),
                host=by,
            )
        self._told = snapshot.contested

    async def _regain_blocks(self) -> None:
        snapshot = self._context.snapshot()
        used = [network for identity, network in snapshot.networks.items() if identity in snapshot.endpoints.networks]
        for network in used:
            is_staying = network.scope is Scope.GLOBAL and network.state is NetworkState.ACTIVE
            if snapshot.complete and is_staying and await self._blocks.regain(network):
                self._context.journal.adopt(self._endpoints.records_of(network))

    async def _leave_gone(self) -> None:
        """Take down what is left here of networks that were removed while this host was away, and say so."""
        access = self._context.stores.cluster
        for gone in tuple(access.view.gone.values()):
            for endpoint in self._context.snapshot().endpoints_in(gone.id):
                container = self._context.journal.containers.get(endpoint.container_id)
                if container is None:
                    continue
                owner = self._containers if container.kind is ContainerKind.RUN else self._attachments
                async with owner.exclusive(container):
                    if endpoint.id in self._context.journal.endpoints:
                        log.warning("container %s loses network %s: it was removed", container.name, gone.name)
                        await self._endpoints.detach((self._context.journal.endpoints[endpoint.id],))
                        self._containers.files.refresh(container)
            if self._context.host.id in gone.hosts:
                await self._confirm(access, gone)

    async def _confirm(self, access: StoreAccess, gone: GoneNetwork) -> None:
        key = keys.gone_key(gone.id)
        entry = access.entry(key)
        rest = tuple(host for host in gone.hosts if host != self._context.host.id)
        if entry is None:
            return
        left = GoneNetwork(id=gone.id, name=gone.name, hosts=rest)
        write = Put(key=key, value=encode_gone(left)) if rest else Delete(key=key)
        # Not carried out if somebody else was quicker: the change brings us here again.
        if await access.commit((Unchanged(key=key, revision=entry.revision),), (write,)):
            self._context.journal.forget_network(gone.id)
