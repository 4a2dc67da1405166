"""An agent without kernel and store: services that remember what they were asked, behind the real gRPC server."""

import asyncio
import builtins
import os
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from netagent.api.server import ApiServer, serve
from netagent.dns.reply import Answer
from netagent.errors import NotFound
from netagent.model.container import Container, ContainerKind, ContainerState
from netagent.model.ids import ContainerId, NetworkId
from netagent.model.network import Network, Scope
from netagent.model.port import PortMapping
from netagent.model.port_grammar import parse_published
from netagent.reconcile.ports import StoreStatistics
from netagent.runtime.layout import Layout
from netagent.runtime.runc import Runtime
from netagent.services.all import Services
from netagent.services.events import EventBus
from netagent.services.exposure import ExposureView
from netagent.services.info import AgentInfo
from netagent.services.requests import (
    Attachment,
    ContainerView,
    HostView,
    LimitChange,
    NetworkChange,
    NetworkView,
    NewConnection,
    NewContainer,
    NewNetwork,
)
from netagent.services.stats import EndpointStats, NetworkStats
from tests.support.world import a_host

_T = TypeVar("_T")

CREATED = "2026-01-02T03:04:05.000006Z"


@dataclass
class FakeServices:
    """What the front door sees of an agent. ``asked`` notes every call; ``refusals`` maps a verb to its error."""

    run_dir: Path
    networks_known: list[NetworkView] = field(default_factory=list)
    containers_known: list[ContainerView] = field(default_factory=list)
    hosts_known: list[HostView] = field(default_factory=list)
    removal_waits: list[tuple[str, ...]] = field(default_factory=list)
    endpoint_stats: tuple[EndpointStats, ...] = ()
    network_stats: tuple[NetworkStats, ...] = ()
    warnings: tuple[str, ...] = ()
    refusals: dict[str, Exception] = field(default_factory=dict)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    kernel_error: str = ""
    store_error: str = ""
    store_connected: bool = True
    answers: tuple[Answer, ...] = ()
    exposed: ExposureView = field(default_factory=lambda: ExposureView(ways=(), warnings=()))

    def services(self) -> Services:
        self.events = EventBus(lambda: CREATED)
        fakes: dict[str, Any] = {
            "networks": _Networks(self),
            "network_removal": _Networks(self),
            "containers": _Containers(self),
            "attachments": _Attachments(self),
            "connections": _Connections(self),
            "publishing": _Publishing(self),
            "limits": _Limits(self),
            "stats": _Stats(self),
            "hosts": _Hosts(self),
            "info": _Info(self),
            "exposure": _Exposure(self),
            "resolving": _Resolving(self),
            **dict.fromkeys(
                ("verification", "collection", "readiness", "host_blocks", "membership", "copying", "rebuilding")
            ),
        }
        return Services(events=self.events, **fakes)

    def note(self, verb: str, *arguments: Any) -> None:
        self.asked.append((verb, *arguments))
        if verb in self.refusals:
            raise self.refusals[verb]

    async def pass_gate(self, verb: str) -> None:
        """Stop here until the test opens the gate of ``verb``, if it has put one up."""
        if verb in self.gates:
            await self.gates[verb].wait()
            self.asked.append((f"{verb} finished",))

    def container(self, name: str) -> ContainerView:
        for view in self.containers_known:
            if name in (view.container.name, view.container.id):
                return view
        raise NotFound(f"No such container: {name}")

    def put(self, view: ContainerView) -> None:
        self.containers_known = [v for v in self.containers_known if v.container.id != view.container.id] + [view]


class _Part:
    def __init__(self, agent: FakeServices) -> None:
        self.agent = agent


class _Networks(_Part):
    async def create(self, request: NewNetwork) -> Network:
        self.agent.note("network create", request)
        return Network(id=NetworkId("9c" * 32), name=request.name, driver=request.driver, scope=Scope.LOCAL)

    def list(self) -> list[Network]:
        self.agent.note("network list")
        return [view.network for view in self.agent.networks_known]

    async def update(self, change: NetworkChange) -> Network:
        self.agent.note("network update", change)
        return self.view(change.name).network

    def usage(self) -> Counter[NetworkId]:
        return Counter({view.network.id: len(view.endpoints) for view in self.agent.networks_known})

    def view(self, name: str) -> NetworkView:
        self.agent.note("network view", name)
        for view in self.agent.networks_known:
            if name in (view.network.name, view.network.id):
                return view
        raise NotFound(f"network {name} not found")

    def taken_from(self, name: str) -> builtins.list[str]:
        return ["h9"] if self.agent.removal_waits == [("h9",)] else []

    async def remove(self, name: str, *, force: bool = False) -> AsyncIterator[tuple[str, ...]]:
        self.agent.note("network remove", name, force)
        self.view(name)
        for hosts in self.agent.removal_waits:
            yield hosts
        await self.agent.pass_gate("network remove")


class _Containers(_Part):
    async def create(self, request: NewContainer) -> tuple[Container, tuple[str, ...]]:
        self.agent.note("create", request)
        await self.agent.pass_gate("create")
        container = Container(
            id=ContainerId("c0" * 32),
            name=request.name or "chosen",
            kind=ContainerKind.RUN,
            state=ContainerState.CREATED,
            command=request.command,
            auto_remove=request.auto_remove,
            created=CREATED,
        )
        self.agent.put(ContainerView(container=container))
        return container, self.agent.warnings

    async def start(self, name: str) -> None:
        self.agent.note("start", name)
        await self.agent.pass_gate("start")
        view = self.agent.container(name)
        self.agent.put(replace(view, container=replace(view.container, state=ContainerState.RUNNING)))

    async def stop(self, name: str, *, timeout_s: float = 10.0) -> None:
        self.agent.note("stop", name, timeout_s)
        self.agent.container(name)
        await self.agent.pass_gate("stop")

    async def kill(self, name: str, signal: int) -> None:
        self.agent.note("kill", name, signal)

    async def wait(self, name: str) -> int:
        self.agent.note("wait", name)
        await self.agent.pass_gate("wait")
        return self.agent.container(name).container.exit_code or 0

    async def remove(self, name: str, *, force: bool = False) -> None:
        self.agent.note("remove", name, force)
        view = self.agent.container(name)
        self.agent.containers_known.remove(view)

    def list(self, *, everything: bool) -> list[ContainerView]:
        self.agent.note("list", everything)
        shown = (ContainerState.RUNNING, ContainerState.CREATED)
        return [v for v in self.agent.containers_known if everything or v.container.state in shown]

    def view(self, name: str) -> ContainerView:
        return self.agent.container(name)


class _Attachments(_Part):
    async def attach(self, request: Attachment) -> ContainerView:
        self.agent.note("attach", request)
        return ContainerView(
            container=Container(id=ContainerId("a7" * 32), name=request.name, kind=ContainerKind.ATTACHED)
        )

    async def detach(self, name: str) -> None:
        self.agent.note("detach", name)


class _Connections(_Part):
    async def connect(self, request: NewConnection) -> str:
        self.agent.note("connect", request)
        return "eth1"

    async def disconnect(self, network: str, container: str, *, force: bool = False) -> None:
        self.agent.note("disconnect", network, container, force)


class _Publishing(_Part):
    async def publish(self, name: str, texts: tuple[str, ...]) -> tuple[PortMapping, ...]:
        self.agent.note("publish", name, texts)
        return parse_published(texts)

    async def unpublish(self, name: str, texts: tuple[str, ...]) -> None:
        self.agent.note("unpublish", name, texts)


class _Limits(_Part):
    async def update(self, change: LimitChange) -> None:
        self.agent.note("update-container", change)


class _Stats(_Part):
    async def containers(self, names: tuple[str, ...]) -> tuple[EndpointStats, ...]:
        self.agent.note("stats", names)
        return self.agent.endpoint_stats

    async def networks(self, names: tuple[str, ...]) -> tuple[NetworkStats, ...]:
        self.agent.note("network-stats", names)
        return self.agent.network_stats


class _Hosts(_Part):
    def list(self) -> list[HostView]:
        return self.agent.hosts_known


class _Exposure(_Part):
    async def view(self) -> ExposureView:
        self.agent.note("exposure")
        return self.agent.exposed


class _Resolving(_Part):
    async def resolve(self, name: str, types: Sequence[str] = (), *, container: str = "") -> tuple[Answer, ...]:
        self.agent.note("resolve", name, tuple(types), container)
        return tuple(answer for answer in self.agent.answers if answer.name == f"{name}.")


class _Info(_Part):
    def info(self) -> AgentInfo:
        self.agent.note("info")
        return AgentInfo(
            version="0.1.0",
            host=a_host(1),
            store="etcd://198.18.0.100:2379",
            store_connected=self.agent.store_connected,
            store_error=self.agent.store_error,
            store_revision=77,
            store_listings={"compacted": 1, "start": 1},
            store_missed=0,
            store_statistics=StoreStatistics(repeated_calls=3, lost_replies=2, unknown_outcomes=1, silent_s=4.21),
            lease_remaining_s=14.21,
            foreign_cluster="",
            kernel_error=self.agent.kernel_error,
            refused=MappingProxyType({"networks/odd": "unknown feature 'x'"}),
            run_dir=str(self.agent.run_dir),
        )


@contextmanager
def background_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread. One for all tests: grpc.aio loses events of loops that are closed meanwhile."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class ServedAgent:
    """Fake services behind a real server in the background, for clients that block."""

    def __init__(self, run_dir: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.run_dir = run_dir
        self.socket_path = run_dir / "agent.sock"
        self.fake = FakeServices(run_dir)
        self._loop = loop
        self._server: ApiServer | None = None

    def start(self) -> None:
        self._server = self.run(serve(self.fake.services(), self.socket_path, run_dir=self.run_dir))

    def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            self.run(server.stop(0.1))

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return the result of ``work``, done in the server's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)

    def until(self, probe: Callable[[], bool], *, within: float = 30.0) -> None:
        """Return when ``probe`` is true; AssertionError after ``within`` seconds."""
        deadline = time.monotonic() + within
        while not probe():
            assert time.monotonic() < deadline, f"not within {within} s"
            time.sleep(0.005)

    def call(self, function: Any, *arguments: Any) -> None:
        """Call ``function`` in the server's thread."""
        self._loop.call_soon_threadsafe(function, *arguments)


@contextmanager
def fake_monitor(directory: Path, *packets: bytes, code: int | None, vanish: bool = False) -> Iterator[list[bytes]]:
    """Stand in for conmon: send packets to the first client, end, and leave an exit status; yields the input it got.

    The packet ``echo`` sends input back to its end, ``wait`` waits for something to be added to that input;
    ``vanish`` removes the directory instead of leaving a status, as an agent may by then.
    """
    directory.mkdir(parents=True)
    received: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptor = os.open(directory, os.O_PATH)
    listener.bind(f"/proc/self/fd/{descriptor}/attach")
    os.close(descriptor)
    listener.listen(1)

    def serve_one() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            # A client that was ended hears no more.
            with suppress(BrokenPipeError, ConnectionResetError):
                for packet in packets:
                    if packet == b"echo":
                        while piece := connection.recv(8192):
                            received.append(piece)
                            connection.send(b"\2" + piece)
                    elif packet == b"wait":
                        while not received:
                            time.sleep(0.005)
                    else:
                        connection.send(packet)
            if vanish:
                shutil.rmtree(directory)
            elif code is not None:
                Layout(directory).exit.write_text(str(code))

    thread = threading.Thread(target=serve_one)
    thread.start()
    try:
        yield received
    finally:
        received.append(b"")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def container_directory(run_dir: Path, container_id: str) -> Path:
    """Return where the files of a container lie."""
    return Runtime(run_dir).layout(ContainerId(container_id)).directory
