"""A table of tracked connections that is filled to its last entry, in a machine whose limit may be changed.

The limit is the whole machine's, and only its first namespace may change it. h1's table is filled with connections to
a published port, which are none that the kernel gives up for others.
"""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar, cast

from netagent.kernel.kernel import Kernel
from netagent.kernel.netns import call_inside, open_namespace, open_own_namespace
from netagent.model.address import derive_mac
from netagent.model.endpoint import Endpoint, EndpointAddress
from netagent.model.endpoint_index import Endpoints
from netagent.model.ids import ContainerId, EndpointId
from netagent.model.port import PortMapping
from netagent.plan.diff import diff
from netagent.plan.render import render_everything
from netagent.services.context import Context
from netagent.services.events import EventBus
from netagent.services.tracking import TrackingService
from tests.support.vm_hosts import (
    UNDERLAY,
    address_of,
    endpoint,
    host,
    inside,
    network,
    sh,
    snapshot,
)

LIMIT = 64
UNTRACKED = "add table inet raw;" + ";".join(
    f"add chain inet raw {hook} {{ type filter hook {hook} priority -300; }}; add rule inet raw {hook} notrack"
    for hook in ("prerouting", "output")
)
_MAX, _COUNT = (Path(f"/proc/sys/net/netfilter/nf_conntrack_{which}") for which in ("max", "count"))
_WITHIN_S = 20.0
"""An emulated machine is slow."""
_REFUSED_WITHIN_S = 2.0
_FULL_WITHIN_S = 120
_T = TypeVar("_T")


def at(namespace: str, function: Callable[[], _T]) -> _T:
    """Return what ``function`` does in a namespace; its sockets stay there."""
    return call_inside(open_namespace(f"/run/netns/{namespace}"), open_own_namespace(), function)


class Agent:
    """The part of h1's agent that looks after the table, and what it tells the rest of it."""

    def __init__(self) -> None:
        self.kernel = Kernel(namespace="/run/netns/h1")
        self.events = EventBus(lambda: "now")
        self.host = host(1)
        self.host_problems: tuple[str, ...] = ()
        self.knowledge = self
        self._service = TrackingService(cast("Context", self))

    async def look(self) -> dict[str, Any]:
        """Look once; return what is told, and what was told so far."""
        await self._service.look()
        results = [event.attributes["result"] for event in self.events.recent()]
        return {"problems": self.host_problems, "events": results}

    async def apply(self, *more: Endpoint) -> list[str]:
        """Bring h1 to its containers, the first with a published port, and ``more``; return what is left to do."""
        known = snapshot(1)
        published = PortMapping(protocol="tcp", container_port=80, host_port=8080)
        first = replace(endpoint(1, network("net")), ports=(published,))
        others = [e for e in known.endpoints.values() if e.id != first.id]
        desired = render_everything(replace(known, endpoints=Endpoints.of([first, *others, *more])))
        await self.kernel.apply(diff(desired, await self.kernel.observe(desired)))
        return [str(o) for o in diff(desired, await self.kernel.observe(desired)).operations]


class Server:
    """Listens on a port in a namespace; connections are made without it, up to as many as may wait."""

    def __init__(self, namespace: str, port: int) -> None:
        self.socket = at(namespace, lambda: socket.create_server(("", port), backlog=LIMIT))
        self.socket.settimeout(_WITHIN_S)


class Connection:
    """One of ``client`` with a server; raises OSError if it cannot be made."""

    def __init__(self, client: str, server: Server, target: str, port: int, within: float = _WITHIN_S) -> None:
        self._near = at(client, lambda: socket.create_connection((target, port), timeout=within))
        self._near.settimeout(_WITHIN_S)
        self._far, _ = server.socket.accept()
        self._far.settimeout(_WITHIN_S)

    def carries(self) -> bool:
        """Tell whether something gets through, both ways."""
        try:
            for sender, receiver in ((self._near, self._far), (self._far, self._near)):
                sender.sendall(b"x")
                if receiver.recv(1) != b"x":
                    return False
        except OSError:
            return False
        return True

    def reset(self) -> None:
        """End it at once, on both sides."""
        self._near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._near.close()
        self._far.close()


def can_connect(client: str, server: Server, target: str, port: int, *, within: float = _WITHIN_S) -> bool:
    try:
        Connection(client, server, target, port, within).reset()
    except OSError:
        return False
    return True


def fill(server: Server) -> list[Connection]:
    """Make connections through the published port until there is no room for one more."""
    made: list[Connection] = []
    deadline = time.monotonic() + _FULL_WITHIN_S
    while int(at("h1", _COUNT.read_text)) < LIMIT and time.monotonic() < deadline:
        # Somebody else may take the last one.
        with suppress(TimeoutError):
            made.append(Connection("h4", server, f"{UNDERLAY}.1", 8080, _REFUSED_WITHIN_S))
    return made


def new_ones(published: Server, outside: Server, *, within: float) -> dict[str, bool]:
    """Tell which connections of those that do not exist yet can be made."""
    return {
        "to a published port": can_connect("h4", published, f"{UNDERLAY}.1", 8080, within=within),
        "of a container to the outside": can_connect("net1", outside, f"{UNDERLAY}.4", 2379, within=within),
    }


def latecomer() -> Endpoint:
    """Return one more container of h1."""
    identity = EndpointId(b"late".hex().ljust(64, "0"))
    return replace(
        endpoint(1, network("net")),
        id=identity,
        container_id=ContainerId(identity),
        container_name="late",
        sandbox="/run/netns/late",
        addresses=(EndpointAddress(address=ip_address("192.168.1.77")),),
        mac=derive_mac("endpoint", identity),
    )


async def look(found: dict[str, Any]) -> None:
    usual = _MAX.read_text()
    agent = Agent()
    try:
        found["left to do"] = await agent.apply()
        for namespace in ("h4", "net1", "net2"):
            # Where these track connections too, each is held to the limit, and would refuse before h1 does.
            inside(namespace, "nft", UNTRACKED)
        # What came before would make room when its time is over.
        inside("h1", "conntrack", "-F")
        inside_port, outside, other = Server("net1", 80), Server("h4", 2379), Server("net2", 7000)
        kept = {
            "to a published port": Connection("h4", inside_port, f"{UNDERLAY}.1", 8080),
            "of a container to the outside": Connection("net1", outside, f"{UNDERLAY}.4", 2379),
            "of the host, as to etcd": Connection("h1", outside, f"{UNDERLAY}.4", 2379),
            "to another host's container": Connection("net1", other, address_of(2, "net"), 7000),
        }
        found["carried before"] = {name: connection.carries() for name, connection in kept.items()}
        _MAX.write_text(str(LIMIT))
        found["told before"] = await agent.look()
        more = fill(inside_port)
        table = await agent.kernel.tracked_connections()
        assert table is not None
        found["full"] = [table.count, table.limit]
        found["told"] = await agent.look()
        found["carried"] = {name: connection.carries() for name, connection in kept.items()}
        found["new"] = new_ones(inside_port, outside, within=_REFUSED_WITHIN_S)
        sh("ip", "netns", "add", "late")
        found["left to do with one more container"] = await agent.apply(latecomer())
        found["on the same bridge"] = at("late", lambda: can_connect_beside(inside_port))
        found["left to do without it"] = await agent.apply()
        for connection in more:
            connection.reset()
        inside("h1", "conntrack", "-D", "-p", "tcp", "--state", "CLOSE")
        found["told afterwards"] = await agent.look()
        found["carried afterwards"] = {name: connection.carries() for name, connection in kept.items()}
        found["new afterwards"] = new_ones(inside_port, outside, within=_WITHIN_S)
        found["left to do in the end"] = await agent.apply()
    finally:
        _MAX.write_text(usual)
        await agent.kernel.close()


def can_connect_beside(server: Server) -> bool:
    """Connect from the calling thread's namespace to the container beside."""
    try:
        socket.create_connection((address_of(1, "net"), 80), timeout=_WITHIN_S).close()
        server.socket.accept()[0].close()
    except OSError:
        return False
    return True
