"""The agent's life: start, serve, stop.

At the start the journal comes first (it says what was promised), then the stores, then the containers and the kernel
are brought to what the journal says, and only then do the doors open. At the stop the doors close and the process
ends; what it programmed goes on working.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

from netagent.api.cni import CniServer
from netagent.api.docker import DockerServer
from netagent.api.docker_verbs import DockerVerbs
from netagent.api.remote import parse_listen
from netagent.api.server import ApiServer, serve, serve_remote
from netagent.api.unix_socket import prepare_directory
from netagent.daemon.config import Config, load_config
from netagent.daemon.log import log_to_stderr
from netagent.daemon.wiring import Agent, build
from netagent.errors import EnvironmentProblem, NetagentError
from netagent.services.docker_collection import DockerCollection
from netagent.services.docker_names import DockerNames
from netagent.services.predefined import create_predefined
from netagent.services.tasks import Tasks
from netagent.store.journal import Journal
from netagent.store.released import Rest

log = logging.getLogger("netagent")

STORE_PATIENCE_S = 3.0
"""How long the start waits for the cluster's store before it goes on with what it knows."""

_YOUNG_OBJECTS = 10_000
"""How many objects are made before the garbage collector looks at them."""

_COLLECT_AFTER_S = 0.5
"""When it has its first turn: it holds everything up for some 40 ms among a thousand endpoints."""

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""What it cannot do without: include/uapi/linux/capability.h."""


def main(config_path: str | None, overrides: Mapping[str, str]) -> None:
    """Run the agent until SIGTERM or SIGINT, a second signal ending it at once; NetagentError if it cannot start."""
    config = load_config(Path(config_path) if config_path else None, overrides)
    lines = log_to_stderr(config.log_level.upper())
    # gRPC's own debug lines say nothing about networks, thousands of times.
    logging.getLogger("grpc").setLevel(logging.WARNING)
    _require_capabilities()
    if identity := config.identity:
        parse_listen(config.listen)
        identity.load()
    os.umask(0o077)
    # Every published port is held by a socket for each address family.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Path(config.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    prepare_directory(Path(config.run_dir))
    try:
        asyncio.run(_run(config))
    except BaseExceptionGroup as group:
        refusals, others = group.split(NetagentError)
        if refusals is None or others is not None:
            raise
        raise _first(refusals) from group
    finally:
        # What ended the agent is said after them.
        lines.flush()


def _require_capabilities() -> None:
    """Raise EnvironmentProblem if this process may not do what an agent does (capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise EnvironmentProblem(
            f"the agent lacks {' and '.join(missing)}: it changes network devices and firewall, and enters namespaces",
            hint="run it as root, for example with sudo",
        )


def _first(group: BaseExceptionGroup[NetagentError]) -> NetagentError:
    """Return the first of the refusals, which alone is worth telling: the others followed from it."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, NetagentError)
    return error


def _collect_seldom() -> None:
    """Keep the garbage collector from looking at all that was loaded again and again; each look holds everything up.

    What is needed for ever is left out of it, and of new objects it looks at ten thousand at a time.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


async def _run(config: Config) -> None:
    stopping = _stop_on_signals()
    journal = Journal(Path(config.state_dir), rest=Rest(hold_down_s=config.address_hold_down))
    alone = _claim_namespace()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            agent = await build(config, journal, tasks)
            try:
                async with _running(agent, tasks):
                    # After the first calls, which have waited for the start.
                    asyncio.get_running_loop().call_later(_COLLECT_AFTER_S, _collect_seldom)
                    log.info("host %s is ready", agent.context.host.name)
                    _tell_supervisor("READY=1")
                    await stopping.wait()
                    _tell_supervisor("STOPPING=1")
                    log.info("stopping; the data path stays as it is")
            finally:
                tasks.cancel()
                for access in agent.context.stores.all:
                    await access.store.close()
                await agent.kernel.close()
    finally:
        alone.close()
        journal.close()


def _claim_namespace() -> socket.socket:
    """Return a socket that no second agent can have: two with different journals would delete each other's links.

    Abstract unix sockets belong to a network namespace (unix(7)), just as what an agent programs.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind("\0netagent")
    except OSError:
        claim.close()
        raise EnvironmentProblem("another agent serves this network namespace", hint="stop it first") from None
    return claim


@contextlib.asynccontextmanager
async def _running(agent: Agent, tasks: Tasks) -> AsyncIterator[None]:
    """Start everything in order; stop the doors at the end."""
    context, services = agent.context, agent.services
    for access in context.stores.all:
        tasks.spawn(access.mirror.run(), name="mirror", essential=True)
    await _hear_stores(agent)
    await agent.presence.establish()
    await create_predefined(context)
    await agent.kernel.sweep()
    await services.attachments.recover()
    await services.containers.recover()
    await agent.docker_endpoints.recover()
    for line in agent.ports.restore():
        log.warning("host port is not reserved: %s", line)
    # What is there is answered for while the kernel is looked at; an attach tells its names before its links too.
    tasks.spawn(agent.naming.run(), name="naming")
    agent.naming.request()
    async with _kernel_in_order(agent):
        tasks.spawn(context.engine.run(), name="engine", essential=True)
        tasks.spawn(agent.publisher.run(), name="publisher", essential=True)
        tasks.spawn(agent.presence.run(), name="presence", essential=True)
        tasks.spawn(agent.moving.run(), name="moving", essential=True)
        tasks.spawn(agent.probing.run(), name="probing")
        tasks.spawn(agent.tracking.run(), name="tracking")
        tasks.spawn(agent.ports.run(), name="ports", essential=True)
        if agent.loopback is not None:
            tasks.spawn(agent.loopback.run(), name="loopback", essential=True)
        agent.publisher.request()
        agent.coexistence.request()
        agent.returning.request()
        agent.uplinks.request()
        tasks.spawn(agent.uplinks.run(), name="uplinks", essential=True)
        tasks.spawn(agent.returning.run(), name="returning", essential=True)
        tasks.spawn(agent.coexistence.run(), name="coexistence")
        await agent.naming.published()
        run_dir = Path(agent.config.run_dir)
        cni = CniServer(services, run_dir / "cni.sock", Path(agent.config.state_dir) / "cni-queue")
        await cni.start()
        tasks.spawn(services.collection.run(), name="collection", essential=True)
        docker = await _serve_docker(agent, tasks)
        servers = await _serve_clients(agent)
        try:
            yield
        finally:
            async with asyncio.TaskGroup() as stopping:
                for server in servers:
                    stopping.create_task(server.stop(grace_s=5.0))
            await cni.close()
            if docker is not None:
                await docker.close()


@contextlib.asynccontextmanager
async def _kernel_in_order(agent: Agent) -> AsyncIterator[None]:
    """Bring the kernel to what it should be, watched from before the first look on.

    What others change while it is looked at is heard, and makes the engine look again; so one look is enough.
    """
    engine = agent.context.engine
    async with agent.kernel.watched(
        engine.request, surroundings=agent.coexistence.request, uplinks=agent.uplinks.request
    ):
        try:
            await agent.probing.recall()
            await engine.reconcile()
        except NetagentError as error:
            log.error("the kernel is not as it should be: %s", error)
            engine.request()
        await _retire_other_firewalls(agent)
        yield


async def _serve_clients(agent: Agent) -> list[ApiServer]:
    config, run_dir = agent.config, Path(agent.config.run_dir)
    servers: list[ApiServer] = []
    if identity := config.identity:
        listen = parse_listen(config.listen)
        servers.append(await serve_remote(agent.services, listen, identity, run_dir=run_dir))
        log.info("clients with certificates are served at %s", listen)
    # The last door: who can connect to the socket finds all others open.
    servers.append(await serve(agent.services, run_dir / "agent.sock", run_dir=run_dir))
    return servers


async def _serve_docker(agent: Agent, tasks: Tasks) -> DockerServer | None:
    options = agent.config.docker_options
    if options is None:
        return None
    verbs = DockerVerbs(agent.docker_networks, agent.docker_endpoints)
    server = DockerServer(verbs, Path(options.plugins))
    await server.start()
    tasks.spawn(server.run(), name="docker", essential=True)
    names = DockerNames(agent.context, agent.dockerd)
    tasks.spawn(names.run(), name="docker names", essential=True)
    collection = DockerCollection(agent.context, agent.docker_endpoints, agent.dockerd, grace_s=options.grace_s)
    tasks.spawn(collection.run(), name="docker collection", essential=True)
    return server


async def _retire_other_firewalls(agent: Agent) -> None:
    try:
        await agent.kernel.retire_other_firewalls()
    except NetagentError as error:
        log.error("rules of another firewall are still there: %s", error)


async def _hear_stores(agent: Agent) -> None:
    for access in agent.context.stores.all:
        mirror = access.mirror
        if not await mirror.wait_until(partial(getattr, mirror, "is_synced"), within=STORE_PATIENCE_S):
            state = "going on with its last known content" if mirror.is_loaded else "nothing is known of it yet"
            log.warning("the store does not answer; %s", state)
    agent.context.stores.adopt(agent.context.journal.adopted)
    agent.context.knowledge.invalidate()


def _stop_on_signals() -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second one ends the process."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        stopping.set()
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    return stopping


def _tell_supervisor(state: str) -> None:
    """Tell systemd, if it started us, how far we are (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
