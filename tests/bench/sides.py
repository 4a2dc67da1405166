"""The ways to attach a container that are measured beside each other, each for a machine of its own.

A side works inside its machine (``tests.bench.worker`` puts it there): it makes sandboxes, which takes no part in the
measurement, and attaches and detaches them with published TCP ports.
"""

import json
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Protocol

from tests.support.cni import PLUGIN
from tests.support.cni_runner import ENVIRONMENT, Runner
from tests.support.lone_host import NETAGENT

REFERENCE_PLUGINS = Path("/usr/lib/cni")
NETAVARK = Path("/usr/lib/podman/netavark")
CACHE = Path("/run/cni-cache")
FIRST_PORT = 10000
NETWORKS = 4
"""Of each side that can have so many endpoints that one bridge does not hold them."""


class Side(Protocol):
    """What takes a turn. Numbers name sandboxes; each attach publishes host ports to the same numbers inside."""

    def start(self) -> None:
        """Make networks, and what else there must be before the first attach."""

    def make(self, numbers: Sequence[int], ports: Sequence[int]) -> None:
        """Make sandboxes that are going to publish ``ports``, or one of their own if that is empty."""

    def attach(self, number: int, ports: Sequence[int]) -> str:
        """Attach a sandbox; return its address, or nothing if that is not told."""

    def detach(self, number: int, ports: Sequence[int]) -> None:
        """Detach it."""

    def remove(self, numbers: Sequence[int]) -> None:
        """Remove sandboxes."""


def own_ports(number: int, ports: Sequence[int]) -> Sequence[int]:
    """Return the host ports of a sandbox: what was asked for, or one of its own."""
    return ports or (FIRST_PORT + number,)


class _Namespaces:
    """Sandboxes that are namespaces with a name, as runtimes make them."""

    def make(self, numbers: Sequence[int], ports: Sequence[int]) -> None:
        ip_batch(f"netns add {sandbox(number)}" for number in numbers)

    def remove(self, numbers: Sequence[int]) -> None:
        ip_batch(f"netns del {sandbox(number)}" for number in numbers)


def sandbox(number: int) -> str:
    """Return the name of a sandbox."""
    return f"s{number}"


def ip_batch(lines: Any, *options: str) -> None:
    """Run lines of ip(8) in one process."""
    said = subprocess.run(["ip", *options, "-batch", "-"], input="\n".join(lines), text=True, capture_output=True)
    if said.returncode:
        raise RuntimeError(f"ip: {said.stderr.strip()}")


class Cni(_Namespaces):
    """Lists of CNI plugins, one for each of some networks, as libcni calls them."""

    def __init__(self, lists: Sequence[dict[str, Any]], directory: Path) -> None:
        self._lists = lists
        self._runners = [
            Runner(conflist=each, path=[directory], cache=CACHE, environment=dict(ENVIRONMENT)) for each in lists
        ]

    def start(self) -> None:
        """Nothing: plugins make what they need."""

    def attach(self, number: int, ports: Sequence[int]) -> str:
        path = f"/run/netns/{sandbox(number)}"
        result = self._runner(number).add(sandbox(number), path, portMappings=_mappings(number, ports))
        return str(result["ips"][0]["address"])

    def detach(self, number: int, ports: Sequence[int]) -> None:
        path = f"/run/netns/{sandbox(number)}"
        self._runner(number).delete(sandbox(number), path, portMappings=_mappings(number, ports))

    def _runner(self, number: int) -> Runner:
        return self._runners[number % len(self._runners)]


def _mappings(number: int, ports: Sequence[int]) -> list[dict[str, Any]]:
    return [{"hostPort": port, "containerPort": port, "protocol": "tcp"} for port in own_ports(number, ports)]


class Own(Cni):
    """netagent's CNI plugin; the machine's agent is there already."""

    def __init__(self) -> None:
        plugin = {"type": "netagent", "capabilities": {"portMappings": True}}
        lists = [{"cniVersion": "1.0.0", "name": f"bench{n}", "plugins": [plugin]} for n in range(NETWORKS)]
        super().__init__(lists, PLUGIN.parent)

    def start(self) -> None:
        """Make the networks."""
        for number in range(NETWORKS):
            create = ["network", "create", "--subnet", f"10.{70 + number}.0.0/16", f"bench{number}"]
            subprocess.run([*NETAGENT, *create], check=True, capture_output=True)


def _reference_lists(*, bare: bool) -> list[dict[str, Any]]:
    """Return lists of the reference plugins: the bridge alone, or with masquerade, portmap and firewall."""
    return [
        {
            "cniVersion": "1.0.0",
            "name": f"reference{number}",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": f"ref{number}",
                    "isGateway": True,
                    "ipMasq": not bare,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": f"10.{80 + number}.0.0/16"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                *([] if bare else [{"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}]),
                *([] if bare else [{"type": "firewall"}]),
            ],
        }
        for number in range(NETWORKS)
    ]


class Reference(Cni):
    """The reference plugins bridge, host-local, portmap and firewall."""

    def __init__(self) -> None:
        super().__init__(_reference_lists(bare=False), REFERENCE_PLUGINS)


class BareBridge(Cni):
    """The reference plugin bridge alone, without masquerade: no port, no rule at all."""

    def __init__(self) -> None:
        super().__init__(_reference_lists(bare=True), REFERENCE_PLUGINS)


class Netavark(_Namespaces):
    """Podman's netavark as Podman calls it, which has chosen the address before."""

    _SUBNET = IPv4Network("10.90.0.0/16")

    def start(self) -> None:
        """Refuse if it is not there."""
        if not NETAVARK.exists():
            raise RuntimeError("netavark is not installed")

    def attach(self, number: int, ports: Sequence[int]) -> str:
        self._call("setup", number, ports)
        return self._address(number)

    def detach(self, number: int, ports: Sequence[int]) -> None:
        self._call("teardown", number, ports)

    def _address(self, number: int) -> str:
        return str(self._SUBNET[10 + number])

    def _call(self, verb: str, number: int, ports: Sequence[int]) -> None:
        gateway, name = str(self._SUBNET[1]), "bench"
        asked = {
            "container_id": f"{number:064x}",
            "container_name": sandbox(number),
            "networks": {name: {"interface_name": "eth0", "static_ips": [self._address(number)]}},
            "network_info": {
                name: {
                    "name": name,
                    "id": "b" * 64,
                    "driver": "bridge",
                    "network_interface": "podman9",
                    "subnets": [{"subnet": str(self._SUBNET), "gateway": gateway}],
                    "ipv6_enabled": False,
                    "internal": False,
                    "dns_enabled": False,
                    "ipam_options": {"driver": "host-local"},
                }
            },
            "port_mappings": [
                {"host_ip": "", "host_port": port, "container_port": port, "protocol": "tcp", "range": 1}
                for port in own_ports(number, ports)
            ],
        }
        command = [str(NETAVARK), "--config", "/run/netavark", verb, f"/run/netns/{sandbox(number)}"]
        said = subprocess.run(
            command, input=json.dumps(asked), text=True, capture_output=True, check=False, env=ENVIRONMENT
        )
        if said.returncode:
            raise RuntimeError(f"netavark {verb}: {said.stdout}{said.stderr}")


class ByHand(_Namespaces):
    """What an administrator does who knows the commands: ip -batch and one element of an nftables map for each port."""

    _SUBNETS = tuple(IPv4Network(f"10.{92 + number}.0.0/16") for number in range(NETWORKS))
    _TABLE = """
    table ip byhand {
        map ports { type inet_service : ipv4_addr . inet_service; }
        chain in { type nat hook prerouting priority dstnat; dnat ip to tcp dport map @ports; }
        chain out { type nat hook postrouting priority srcnat; ip saddr 10.92.0.0/14 oifname != "hand*" masquerade; }
    }
    """

    def start(self) -> None:
        """Make the bridges and the table."""
        for number, subnet in enumerate(self._SUBNETS):
            link = f"hand{number}"
            ip_batch([f"link add {link} type bridge", f"link set {link} up", f"address add {subnet[1]}/16 dev {link}"])
        subprocess.run(["nft", "-f", "-"], input=self._TABLE, text=True, check=True)

    def attach(self, number: int, ports: Sequence[int]) -> str:
        name, network = sandbox(number), number % NETWORKS
        gateway, address = self._SUBNETS[network][1], self._SUBNETS[network][10 + number]
        link = f"link add h{name} type veth peer name eth0 netns {name}"
        ip_batch([link, f"link set h{name} master hand{network} up"])
        inside = ["link set eth0 up", f"address add {address}/16 dev eth0", f"route add default via {gateway}"]
        ip_batch(inside, "-n", name)
        elements = ", ".join(f"{port} : {address} . {port}" for port in own_ports(number, ports))
        self._nft(f"add element ip byhand ports {{ {elements} }}")
        return str(address)

    def detach(self, number: int, ports: Sequence[int]) -> None:
        elements = ", ".join(map(str, own_ports(number, ports)))
        self._nft(f"delete element ip byhand ports {{ {elements} }}")
        ip_batch([f"link del h{sandbox(number)}"])

    def _nft(self, command: str) -> None:
        subprocess.run(["nft", "-f", "-"], input=command, text=True, check=True, capture_output=True)
