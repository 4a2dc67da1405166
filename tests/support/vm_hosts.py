"""Hosts in namespaces of a machine whose kernel has GRE.

h1 and h2 have the kernel's GRE, h3 the kernel's Open vSwitch. Each gets what the agent would decide for it, applied by
the agent's own code. ``tests/bench/emulated.py`` measures between two such hosts.
"""

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from netagent.kernel.kernel import Kernel
from netagent.model.address import derive_mac, parse_address, parse_prefix
from netagent.model.block import Block
from netagent.model.claims import Claims
from netagent.model.endpoint import Endpoint, EndpointAddress, EndpointState
from netagent.model.endpoint_index import Endpoints
from netagent.model.host import Host
from netagent.model.host_index import Hosts
from netagent.model.ids import ContainerId, EndpointId, HostId, NetworkId
from netagent.model.network import Network, Scope, Subnet
from netagent.model.snapshot import Snapshot
from netagent.plan.diff import diff
from netagent.plan.render import render_everything

UNDERLAY = "198.18.0"
KEYS = {"net": 4097, "six": 4098, "vxlan": 4099, "route": 4100}
_IDS = {name: NetworkId(letter * 64) for name, letter in (("net", "a"), ("six", "b"), ("vxlan", "c"), ("route", "d"))}
_PREFIXES = {
    "net": ("192.168.0.0/16", "fd00:77::/64"),
    "six": ("10.66.0.0/16",),
    "vxlan": ("10.67.0.0/16",),
    "route": ("10.68.0.0/16",),
}
_LENGTHS = {4: 24, 6: 80}
_DATABASE = "/run/openvswitch/conf.db"


def sh(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, capture_output=True, check=check, timeout=300)


def inside(namespace: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return sh("ip", "netns", "exec", namespace, *command, check=check)


def network(name: str) -> Network:
    """Return a network: ``net`` by GRE, ``six`` by GRE over IPv6, or the one with the name of its driver."""
    subnets = tuple(
        Subnet(prefix=prefix, gateway=prefix[1], block_length=_LENGTHS[prefix.version])
        for prefix in map(parse_prefix, _PREFIXES[name])
    )
    return Network(
        id=_IDS[name],
        name=name,
        driver=name if name in ("vxlan", "route") else "gre",
        scope=Scope.GLOBAL,
        subnets=subnets,
        vni=KEYS[name],
        underlay=6 if name == "six" else 4,
    )


def host(number: int) -> Host:
    return Host(
        id=HostId(f"00000000-0000-0000-0000-00000000000{number}"),
        name=f"h{number}",
        underlay=(parse_address(f"{UNDERLAY}.{number}"), parse_address(f"fd00:198:18::{number}")),
        mtu=1500,
        interface="eth0",
        on_link=(parse_prefix(f"{UNDERLAY}.0/24"), parse_prefix("fd00:198:18::/64")),
        features=frozenset() if number == 3 else frozenset({"gre", "gre6"}),
    )


def blocks(number: int, of: Network) -> list[Block]:
    found = []
    for subnet in of.subnets:
        size = 1 << (subnet.prefix.max_prefixlen - subnet.block_length)
        prefix = type(subnet.prefix)((int(subnet.prefix[0]) + number * size, subnet.block_length))
        found.append(Block(network_id=of.id, prefix=prefix, owner=host(number).id, epoch=1, own_address=prefix[0]))
    return found


def endpoint(number: int, of: Network) -> Endpoint:
    name = f"{of.name}{number}"
    identity = EndpointId(name.encode().hex().ljust(64, "0"))
    return Endpoint(
        id=identity,
        network_id=of.id,
        container_id=ContainerId(identity),
        container_name=name,
        interface="eth0",
        sandbox=f"/run/netns/{name}",
        addresses=tuple(EndpointAddress(address=b.prefix[1]) for b in blocks(number, of)),
        mac=derive_mac("endpoint", identity),
        state=EndpointState.ATTACHED,
    )


def snapshot(number: int, names: Sequence[str] = ("net", "six")) -> Snapshot:
    """Return what host ``number`` knows of these networks; h3 has a part in ``net`` alone."""
    networks = [network(name) for name in names if number != 3 or name == "net"]
    endpoints = [endpoint(number, of) for of in networks]
    hosts = {host(n).id: host(n) for n in (1, 2, 3)}
    claims = [b for n in hosts for of in networks for b in blocks(int(n[-1]), of) if n[-1] != "3" or of.name == "net"]
    return Snapshot(
        host=host(number),
        networks={of.id: of for of in networks},
        hosts=Hosts.of(hosts.values()),
        claims=Claims.of(claims),
        endpoints=Endpoints.of(endpoints),
    )


def lay_cables(hosts: Mapping[str, int]) -> None:
    """Make a namespace for each host, with an interface on one switch and the addresses of that number."""
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "link", "set", "br0", "up")
    for name, number in hosts.items():
        sh("ip", "netns", "add", name)
        sh("ip", "link", "add", f"c{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        sh("ip", "link", "set", f"c{number}", "master", "br0", "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("link", "set", "eth0", "up"),
            ("address", "add", f"{UNDERLAY}.{number}/24", "dev", "eth0"),
            ("address", "add", f"fd00:198:18::{number}/64", "dev", "eth0", "nodad"),
        ):
            sh("ip", "-n", name, *command)


def add_containers(known: Snapshot) -> None:
    """Make the namespaces of a host's containers."""
    for of in known.endpoints.values():
        sh("ip", "netns", "add", of.container_name)


def start_switch() -> None:
    Path(_DATABASE).parent.mkdir(parents=True, exist_ok=True)
    sh("ovsdb-tool", "create", _DATABASE, "/usr/share/openvswitch/vswitch.ovsschema")
    remote = "punix:/run/openvswitch/db.sock"
    sh("ovsdb-server", "--detach", "--no-chdir", "--pidfile", "-vfile:off", f"--remote={remote}", _DATABASE)
    sh("ovs-vsctl", "--no-wait", "init")
    inside("h3", "ovs-vswitchd", "--detach", "--no-chdir", "--pidfile", "-vfile:off", "unix:/run/openvswitch/db.sock")


async def bring_up(known: Snapshot) -> list[str]:
    """Apply what a host should hold; return what a second look still finds to do."""
    kernel = Kernel(namespace=f"/run/netns/{known.host.name}")
    try:
        desired = render_everything(known)
        await kernel.apply(diff(desired, await kernel.observe(desired)))
        return [str(o) for o in diff(desired, await kernel.observe(desired)).operations]
    finally:
        await kernel.close()


def address_of(number: int, name: str, version: int = 4) -> str:
    found = endpoint(number, network(name)).address_of(version)
    return str(found)


def pings(source: str, target: str, *options: str) -> bool:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if " 2 received" in inside(source, "ping", "-n", "-c2", "-i0.3", "-W1", *options, target, check=False).stdout:
            return True
    return False
