"""Attachments: namespaces that somebody else made and owns, connected by ``netagent attach`` or by CNI."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from netagent.errors import Conflict, InvalidRequest, NotFound
from netagent.model.container import Container, ContainerKind, ContainerState, Origin
from netagent.model.endpoint import Endpoint, EndpointState
from netagent.model.ids import ContainerId, parse_name
from netagent.model.label import parse_labels
from netagent.plan.names import veth_name
from netagent.services.context import Context
from netagent.services.endpoints import EndpointService, refuse_taken_name
from netagent.services.interfaces import choose_interfaces
from netagent.services.locks import Locks
from netagent.services.names import find_by_name
from netagent.services.network_texts import names_of, split_networks
from netagent.services.networks import NetworkService
from netagent.services.requests import Attachment, ContainerView
from netagent.services.veths import has_veth
from netagent.services.wanted import parse_served, parse_wanted


class AttachmentService:
    """Connects and disconnects existing network namespaces."""

    def __init__(self, context: Context, networks: NetworkService, endpoints: EndpointService) -> None:
        self._context = context
        self._networks = networks
        self._endpoints = endpoints
        self._locks = Locks()

    async def attach(self, request: Attachment) -> ContainerView:
        """Connect a namespace to networks under a name; all or nothing."""
        name = parse_name(request.name, what="container")
        sandbox = f"/proc/{request.netns}/ns/net" if request.netns.isdecimal() else request.netns
        if not sandbox.startswith("/"):
            raise InvalidRequest(f"invalid network namespace {request.netns!r}", hint="give an absolute path or a pid")
        texts = split_networks(request.connection)
        networks = self._networks.find_for_endpoints(names_of(texts))
        interfaces = choose_interfaces(texts, networks, first=request.interface)
        wanted = tuple(
            replace(want, aliases=tuple(dict.fromkeys((*want.aliases, *request.names))))
            for want in parse_wanted(request.connection, networks, interfaces)
        )
        async with self._locks.held(request.container_id or name):
            container = self._container_for(request, name, sandbox)
            if request.configuration:
                origin = Origin(interface=interfaces[0], configuration=request.configuration, ipam=request.ipam)
                container = _with_origin(container, origin)
            await self._endpoints.attach(container, wanted)
        return self._view(container)

    def exclusive(self, container: Container) -> AbstractAsyncContextManager[None]:
        """Return a block in which nothing else is done with ``container``."""
        return self._locks.held(container.runtime_id or container.name)

    def _container_for(self, request: Attachment, name: str, sandbox: str) -> Container:
        """Return the container that an attachment belongs to, known or new."""
        containers = self._context.journal.containers
        if request.container_id:
            known = next(
                (c for c in containers.values() if c.kind is request.kind and c.runtime_id == request.container_id),
                None,
            )
            if known is not None:
                return replace(known, sandbox=sandbox)
        refuse_taken_name(name, containers.values())
        return Container(
            id=ContainerId(self._context.new_id()),
            name=name,
            kind=request.kind,
            sandbox=sandbox,
            runtime_id=request.container_id,
            state=ContainerState.RUNNING,
            exposed=parse_served(request.connection),
            created=self._context.now(),
            labels=parse_labels(request.labels),
        )

    def _view(self, container: Container) -> ContainerView:
        networks = self._context.snapshot().networks
        rows = self._context.journal.endpoints_of(container.id)
        return ContainerView(container=container, endpoints=tuple((e, networks.get(e.network_id)) for e in rows))

    async def detach(self, name: str) -> None:
        """Disconnect what ``attach`` connected under ``name``, with all its interfaces."""
        container = find_by_name(
            name,
            self._context.journal.containers.values(),
            what="container",
            missing=f"No such container: {name}",
            hint="netagent ps -a shows those there are",
        )
        if container.kind is ContainerKind.RUN:
            raise Conflict(f"container {container.name} was started by netagent", hint=f"netagent rm {container.name}")
        async with self._locks.held(container.runtime_id or container.name):
            await self._remove(container, self._context.journal.endpoints_of(container.id))

    def find_interface(self, container_id: str, interface: str) -> tuple[Container, Endpoint] | None:
        """Return the attachment that a runtime's container has under ``interface``, or None."""
        container = self._find_runtimes(container_id)
        if container is None:
            return None
        rows = self._context.journal.endpoints_of(container.id)
        return next(((container, row) for row in rows if row.interface == interface), None)

    def _find_runtimes(self, container_id: str) -> Container | None:
        known = (c for c in self._context.journal.containers.values() if c.kind is ContainerKind.CNI)
        return next((c for c in known if c.runtime_id == container_id), None)

    async def detach_interface(
        self, container_id: str, interface: str, network_id: str | None, *, configuration: str = ""
    ) -> None:
        """Disconnect one interface of a runtime's container (CNI DEL); whatever is gone already is no error.

        It is the one that ``configuration`` made, whatever network that names by now; else the one in the network,
        or with None in any.
        """
        async with self._locks.held(container_id):
            found = self.find_interface(container_id, interface)
            if found is None:
                container = self._find_runtimes(container_id)
                if container is not None:
                    await self._remove(container, ())
                return
            container, row = found
            origin = container.origin_of(interface)
            is_meant = origin is not None and origin.configuration == configuration
            if is_meant or network_id in (None, row.network_id):
                await self._remove(container, (row,))

    async def _remove(self, container: Container, endpoints: Sequence[Endpoint]) -> None:
        is_last = len(endpoints) == len(self._context.journal.endpoints_of(container.id))
        await self._endpoints.detach(endpoints, container=container if is_last else None)

    async def detach_lost(self, container: Container, endpoint: Endpoint) -> None:
        """Disconnect an attachment that nobody will disconnect any more; one that was replaced meanwhile stays."""
        async with self.exclusive(container):
            if self._context.journal.endpoints.get(endpoint.id) == endpoint:
                await self._remove(container, (endpoint,))

    async def has_sandbox(self, endpoint: Endpoint) -> bool:
        """Tell whether the namespace that an endpoint was made in is still at its path.

        Unavailable if that cannot be learnt now.
        """
        try:
            return await self._context.kernel.sandbox_inode(endpoint.sandbox) == endpoint.sandbox_inode
        except NotFound:
            return False
        except InvalidRequest:
            # An agent whose mounts are its own sees the empty file below a mount that was made later.
            return await has_veth(self._context, endpoint)

    async def recover(self) -> None:
        """Settle what an earlier agent left: half-made attachments go, half-removed ones go on, and so do lost ones.

        A namespace that is gone took its end with it, as after a reboot; whoever owned it will not say so any more.
        The kernel is asked once for the links of all.
        """
        there = await self._context.kernel.own_links()
        for container in tuple(self._context.journal.containers.values()):
            if container.kind in (ContainerKind.RUN, ContainerKind.DOCKER):
                continue
            rows = self._context.journal.endpoints_of(container.id)
            lost = [e for e in rows if e.state is not EndpointState.ATTACHED or not await self._is_alive(e, there)]
            if lost or (not rows and await self._inode_of(container.sandbox) is None):
                await self._remove(container, lost)

    async def _is_alive(self, endpoint: Endpoint, links: Collection[str]) -> bool:
        """Tell whether an endpoint's namespace is alive: by the pair that would be gone with it, or by its path."""
        is_known = endpoint.network_id in self._context.snapshot().networks
        if is_known and veth_name(endpoint.id) in links:
            return True
        return await self._inode_of(endpoint.sandbox) == endpoint.sandbox_inode

    async def _inode_of(self, sandbox: str) -> int | None:
        try:
            return await self._context.kernel.sandbox_inode(sandbox)
        except (NotFound, InvalidRequest):
            return None


def _with_origin(container: Container, origin: Origin) -> Container:
    others = (other for other in container.origins if other.interface != origin.interface)
    return replace(container, origins=(*others, origin))
