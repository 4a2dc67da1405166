"""The gRPC server: on the agent's unix socket, and on a TCP port for clients with certificates.

The two are servers of their own, so that what remote clients do to theirs (connections, streams) costs those of this
machine nothing.
"""

from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from netagent.api.agent import AgentServicer
from netagent.api.containers import ContainersServicer
from netagent.api.events import EventsServicer
from netagent.api.firewall import FirewallServicer
from netagent.api.hosts import HostsServicer
from netagent.api.intercept import Interceptor
from netagent.api.names import NamesServicer
from netagent.api.networks import NetworksServicer
from netagent.api.remote import REMOTE_OPTIONS, Listen, Renewed, check_free
from netagent.api.roles import Roles, harmless_methods
from netagent.api.shield import Shield
from netagent.api.stats import StatsServicer
from netagent.api.unix_socket import listening_at
from netagent.certificates import Identity
from netagent.runtime.runc import Runtime
from netagent.services.all import Services
from netagent.v1 import (
    agent_pb2,
    containers_pb2,
    events_pb2,
    firewall_pb2,
    hosts_pb2,
    names_pb2,
    networks_pb2,
    stats_pb2,
)
from netagent.v1.agent_pb2_grpc import add_AgentServicer_to_server
from netagent.v1.containers_pb2_grpc import add_ContainersServicer_to_server
from netagent.v1.events_pb2_grpc import add_EventsServicer_to_server
from netagent.v1.firewall_pb2_grpc import add_FirewallServicer_to_server
from netagent.v1.hosts_pb2_grpc import add_HostsServicer_to_server
from netagent.v1.names_pb2_grpc import add_NamesServicer_to_server
from netagent.v1.networks_pb2_grpc import add_NetworksServicer_to_server
from netagent.v1.stats_pb2_grpc import add_StatsServicer_to_server

_OPTIONS = (
    # A command line with its environment is at most 2 MiB (execve(2), ARG_MAX).
    ("grpc.max_receive_message_length", 4 << 20),
    # A listing of 10,000 containers is some 10 MiB.
    ("grpc.max_send_message_length", 64 << 20),
)

_FILES = (agent_pb2, containers_pb2, events_pb2, firewall_pb2, hosts_pb2, names_pb2, networks_pb2, stats_pb2)
_SERVICES = tuple(service.full_name for file in _FILES for service in file.DESCRIPTOR.services_by_name.values())


class ApiServer:
    """The server while it runs."""

    def __init__(
        self, server: grpc.aio.Server, interceptor: Interceptor, shield: Shield, liveness: health.aio.HealthServicer
    ) -> None:
        self.server = server
        self._interceptor = interceptor
        self._shield = shield
        self._liveness = liveness

    async def start(self) -> None:
        """Take calls from now on."""
        await self.server.start()
        for name in ("", *_SERVICES):
            await self._liveness.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Take no more calls, end those that only wait, and let work in progress end within ``grace_s``."""
        await self._liveness.enter_graceful_shutdown()
        self._interceptor.interrupt()
        await self.server.stop(grace_s)
        await self._shield.drain(grace_s)

    async def wait_for_termination(self) -> None:
        """Return when ``stop`` was called and is done."""
        await self.server.wait_for_termination()


async def serve(services: Services, socket_path: Path, *, run_dir: Path) -> ApiServer:
    """Serve ``services`` at ``socket_path`` until ``stop``; Conflict if another agent does.

    Below ``run_dir`` are the containers' files, of which clients are told.
    """
    api = _serving(services, run_dir, Interceptor(), _OPTIONS)
    with listening_at(socket_path):
        api.server.add_insecure_port(f"unix:{socket_path}")
    await api.start()
    return api


async def serve_remote(services: Services, listen: Listen, identity: Identity, *, run_dir: Path) -> ApiServer:
    """Serve ``services`` at ``listen`` until ``stop``, to clients with a certificate and a role, and to no others.

    The agent's certificate is that of ``identity``, clients' must be of its authority. Renewed files count from the
    next connection on. EnvironmentProblem if they cannot be used, or the port not be had.
    """
    credentials = Renewed(identity).credentials()
    check_free(listen)
    roles = Roles(harmless_methods(file.DESCRIPTOR for file in _FILES))
    api = _serving(services, run_dir, Interceptor(roles), (*_OPTIONS, *REMOTE_OPTIONS))
    api.server.add_secure_port(str(listen), credentials)
    await api.start()
    return api


def _serving(
    services: Services, run_dir: Path, interceptor: Interceptor, options: tuple[tuple[str, int], ...]
) -> ApiServer:
    """Return a server with all services and no address yet."""
    shield = Shield()
    server = grpc.aio.server(interceptors=(interceptor,), options=options)
    add_AgentServicer_to_server(
        AgentServicer(services.info, services.membership, services.rebuilding, services.copying, shield), server
    )
    add_ContainersServicer_to_server(
        ContainersServicer(
            services.containers,
            services.attachments,
            services.publishing,
            services.limits,
            shield,
            Runtime(run_dir).layout,
        ),
        server,
    )
    add_EventsServicer_to_server(EventsServicer(services.events), server)
    add_FirewallServicer_to_server(FirewallServicer(services.exposure), server)
    add_HostsServicer_to_server(HostsServicer(services.hosts, services.host_blocks, shield), server)
    add_NamesServicer_to_server(NamesServicer(services.resolving), server)
    add_NetworksServicer_to_server(NetworksServicer(services, shield), server)
    add_StatsServicer_to_server(StatsServicer(services.stats), server)
    liveness = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(liveness, server)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return ApiServer(server, interceptor, shield, liveness)
