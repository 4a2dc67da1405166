"""Throw-away network namespaces for tests, and programs run in them. The machine's own namespace is never changed.

``host`` plays the machine, ``sandbox`` makes containers' namespaces, ``kernel`` is the real Kernel at work in ``host``.
"""

import itertools
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from netagent.kernel.kernel import Kernel
from netagent.model.address import derive_mac
from netagent.plan.desired import (
    ALIAS_PREFIX,
    HOST,
    Bridge,
    InterfaceAddress,
    Link,
    Route,
    State,
    Veth,
    Vxlan,
)

_numbers = itertools.count()


class Namespace:
    """One named network namespace with loopback up, made by iproute2."""

    def __init__(self) -> None:
        self.name = f"natest-{os.getpid()}-{next(_numbers)}"
        self.path = f"/run/netns/{self.name}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.ip("link", "set", "lo", "up")

    @property
    def inode(self) -> int:
        """The namespace's inode number."""
        return Path(self.path).stat().st_ino

    def run(self, *command: str, check: bool = True) -> str:
        """Run ``command`` inside and return its standard output."""
        done = subprocess.run(["nsenter", f"--net={self.path}", *command], capture_output=True, text=True)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def ip(self, *arguments: str) -> str:
        """Run iproute2's ip inside."""
        return self.run("ip", *arguments)

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        """Run ``ip -details -json`` or, if the first argument is "bridge", that program; return the list it prints."""
        program = arguments[0] if arguments[0] == "bridge" else "ip"
        rest = arguments[1:] if arguments[0] == "bridge" else arguments
        text = self.run(program, "-details", "-json", *rest)
        entries: list[dict[str, Any]] = json.loads(text) if text.strip() else []
        return [entry for entry in entries if entry]

    def links(self) -> dict[str, dict[str, Any]]:
        """Return the links by name, as iproute2 shows them."""
        return {link["ifname"]: link for link in self.json("link", "show")}

    def ping(self, target: str, *, within_s: int = 20) -> bool:
        """Tell whether an echo request, of which there is one only, is answered within the time."""
        command = ["nsenter", f"--net={self.path}", "ping", "-c1", f"-W{within_s}", target]
        return subprocess.run(command, capture_output=True).returncode == 0

    def snapshot(self) -> dict[str, Any]:
        """Return links, addresses, routes, neighbours and the ruleset as the usual programs show them.

        Without what the kernel adds or takes away some time after a change: that an IPv6 address is still being tried
        (duplicate address detection), that a device has no carrier.
        """
        listed = {what: self.run("ip", "-oneline", *what.split()) for what in ("addr", "route", "-6 route", "neigh")}
        lasting = {what: text.replace(" tentative", "").replace(" linkdown", "") for what, text in listed.items()}
        return {**lasting, "links": sorted(self.links()), "nft": self.run("nft", "list", "ruleset")}

    def delete(self) -> None:
        """Remove the name; the namespace goes with its last user."""
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)


def eventually(predicate: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Return once ``predicate()`` holds; AssertionError if it does not within the time."""
    deadline = time.monotonic() + within_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s")
        time.sleep(0.01)


@pytest.fixture
def sandbox() -> Iterator[Callable[[], Namespace]]:
    """Yield a function that makes a namespace which is removed after the test."""
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace())
        return made[-1]

    yield make
    for namespace in made:
        namespace.delete()


@pytest.fixture
def host(sandbox: Callable[[], Namespace]) -> Namespace:
    """The namespace that plays the machine."""
    return sandbox()


@pytest.fixture
async def kernel(host: Namespace) -> AsyncIterator[Kernel]:
    """Yield the real kernel at work in ``host``."""
    running = Kernel(namespace=host.path)
    yield running
    await running.close()


def bridge(name: str = "nab1", **changes: Any) -> Link:
    """Return a bridge of ours."""
    link = Link(name=name, kind=Bridge(), mtu=1450, alias=f"{ALIAS_PREFIX}{name}", mac=derive_mac(name))
    return replace(link, **changes)


def vxlan(name: str = "nav1", *, vni: int = 77, local: str = "198.18.0.1", **changes: Any) -> Link:
    """Return a VXLAN device of ours."""
    kind = Vxlan(vni=vni, local=ip_address(local))
    return replace(Link(name=name, kind=kind, mtu=1400, alias=f"{ALIAS_PREFIX}{name}", mac=derive_mac(name)), **changes)


def veth(sandbox: Namespace, name: str = "nae1", *, interface: str = "eth0", **changes: Any) -> Link:
    """Return a veth pair into ``sandbox``, a port of the bridge nab1."""
    kind = Veth(sandbox=sandbox.path, interface=interface, peer_mac=derive_mac(name), sandbox_inode=sandbox.inode)
    return replace(Link(name=name, kind=kind, mtu=1450, alias=f"{ALIAS_PREFIX}{name}", master="nab1"), **changes)


def address(text: str, device: str, where: str = HOST, **changes: Any) -> InterfaceAddress:
    """Return the address with prefix length ``text`` on ``device``."""
    given = ip_interface(text)
    value = InterfaceAddress(device=device, address=given.ip, length=given.network.prefixlen, where=where)
    return replace(value, **changes)


def route(destination: str, device: str, via: str | None = None, where: str = HOST, **changes: Any) -> Route:
    """Return a route through ``device``."""
    gateway = ip_address(via) if via else None
    return replace(Route(destination=ip_network(destination), device=device, gateway=gateway, where=where), **changes)


def state(*links: Link, **parts: Any) -> State:
    """Return a state with ``links`` and whatever else is named."""
    sets: dict[str, Any] = {
        name: frozenset(values) if isinstance(values, list | tuple) else values for name, values in parts.items()
    }
    return State(links=MappingProxyType({link.name: link for link in links}), **sets)


def endpoint(sandbox: Namespace, number: int, **changes: Any) -> State:
    """Return the endpoint with the addresses 10.9.0.<number> and fd00:9::<number>, a port of nab1."""
    return state(
        veth(sandbox, f"nae{number}", **changes),
        addresses=[
            address(f"10.9.0.{number}/16", "eth0", sandbox.path),
            address(f"fd00:9::{number}/64", "eth0", sandbox.path),
        ],
        routes=[route("0.0.0.0/0", "eth0", "10.9.0.1", sandbox.path)],
    )
