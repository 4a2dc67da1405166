"""The service ``Containers``: those that netagent runs, and namespaces that it connects for others."""

# ruff: noqa: N802 - the methods have the names that the contract gives them

from collections.abc import Callable

from netagent.api.convert import (
    decode_attachment,
    decode_limit_change,
    decode_new_container,
    encode_container,
    encode_port,
)
from netagent.api.shield import Shield
from netagent.errors import InvalidRequest
from netagent.model.container import Container
from netagent.model.ids import ContainerId
from netagent.runtime.layout import Layout
from netagent.services.attachments import AttachmentService
from netagent.services.containers import ContainerService
from netagent.services.limits import LimitService
from netagent.services.publishing import PublishingService
from netagent.services.requests import ContainerView
from netagent.v1 import containers_pb2, containers_pb2_grpc

_DEFAULT_TIMEOUT_S = 10
_LAST_SIGNAL = 64
"""SIGRTMAX, signal(7)."""


class ContainersServicer(containers_pb2_grpc.ContainersServicer):
    """Containers; whatever changes one is done under a shield. ``layout`` tells where a container's files lie."""

    def __init__(
        self,
        containers: ContainerService,
        attachments: AttachmentService,
        publishing: PublishingService,
        limits: LimitService,
        shield: Shield,
        layout: Callable[[ContainerId], Layout],
    ) -> None:
        self._containers = containers
        self._attachments = attachments
        self._publishing = publishing
        self._limits = limits
        self._shield = shield
        self._layout = layout

    async def Create(
        self, request: containers_pb2.CreateContainerRequest, context: object
    ) -> containers_pb2.CreateContainerResponse:
        """Make a container. One that nobody waits for any more is removed: nobody has learnt its name."""
        container, warnings = await self._shield.finish(
            self._containers.create(decode_new_container(request)), unclaimed=self._discard
        )
        return containers_pb2.CreateContainerResponse(
            id=container.id, name=container.name, warnings=warnings, directory=self._directory(container.id)
        )

    async def _discard(self, created: tuple[Container, tuple[str, ...]]) -> None:
        container, _ = created
        await self._containers.remove(container.id, force=True)

    async def Start(
        self, request: containers_pb2.StartContainerRequest, context: object
    ) -> containers_pb2.StartContainerResponse:
        """Run a container."""
        await self._shield.finish(self._containers.start(request.name))
        return containers_pb2.StartContainerResponse()

    async def Stop(
        self, request: containers_pb2.StopContainerRequest, context: object
    ) -> containers_pb2.StopContainerResponse:
        """End a container."""
        timeout_s = request.timeout_s if request.HasField("timeout_s") else _DEFAULT_TIMEOUT_S
        await self._shield.finish(self._containers.stop(request.name, timeout_s=timeout_s))
        return containers_pb2.StopContainerResponse()

    async def Kill(
        self, request: containers_pb2.KillContainerRequest, context: object
    ) -> containers_pb2.KillContainerResponse:
        """Signal a container."""
        if not 1 <= request.signal <= _LAST_SIGNAL:
            raise InvalidRequest(f"Invalid signal: {request.signal}", hint=f"signals are 1 to {_LAST_SIGNAL}")
        await self._shield.finish(self._containers.kill(request.name, request.signal))
        return containers_pb2.KillContainerResponse()

    async def Wait(
        self, request: containers_pb2.WaitContainerRequest, context: object
    ) -> containers_pb2.WaitContainerResponse:
        """Wait until a container does not run any more."""
        return containers_pb2.WaitContainerResponse(exit_code=await self._containers.wait(request.name))

    async def Remove(
        self, request: containers_pb2.RemoveContainerRequest, context: object
    ) -> containers_pb2.RemoveContainerResponse:
        """Remove a container."""
        await self._shield.finish(self._containers.remove(request.name, force=request.force))
        return containers_pb2.RemoveContainerResponse()

    async def List(
        self, request: containers_pb2.ListContainersRequest, context: object
    ) -> containers_pb2.ListContainersResponse:
        """Return the running containers, or all."""
        views = self._containers.list(everything=request.all)
        return containers_pb2.ListContainersResponse(containers=[self._encode(view) for view in views])

    async def Inspect(
        self, request: containers_pb2.InspectContainerRequest, context: object
    ) -> containers_pb2.Container:
        """Return one container."""
        return self._encode(self._containers.view(request.name))

    async def Attach(self, request: containers_pb2.AttachRequest, context: object) -> containers_pb2.AttachResponse:
        """Connect an existing namespace."""
        view = await self._shield.finish(self._attachments.attach(decode_attachment(request)))
        return containers_pb2.AttachResponse(container=self._encode(view))

    async def Detach(self, request: containers_pb2.DetachRequest, context: object) -> containers_pb2.DetachResponse:
        """Disconnect what was attached."""
        await self._shield.finish(self._attachments.detach(request.name))
        return containers_pb2.DetachResponse()

    async def Publish(self, request: containers_pb2.PublishRequest, context: object) -> containers_pb2.PublishResponse:
        """Publish further ports."""
        ports = await self._shield.finish(self._publishing.publish(request.name, tuple(request.publish)))
        return containers_pb2.PublishResponse(ports=[encode_port(port) for port in ports])

    async def Unpublish(
        self, request: containers_pb2.UnpublishRequest, context: object
    ) -> containers_pb2.UnpublishResponse:
        """Take published ports back."""
        await self._shield.finish(self._publishing.unpublish(request.name, tuple(request.publish)))
        return containers_pb2.UnpublishResponse()

    async def Update(
        self, request: containers_pb2.UpdateContainerRequest, context: object
    ) -> containers_pb2.UpdateContainerResponse:
        """Change a container's limits."""
        await self._shield.finish(self._limits.update(decode_limit_change(request)))
        return containers_pb2.UpdateContainerResponse()

    def _encode(self, view: ContainerView) -> containers_pb2.Container:
        return encode_container(view, directory=self._directory(view.container.id))

    def _directory(self, container_id: ContainerId) -> str:
        return str(self._layout(container_id).directory)
