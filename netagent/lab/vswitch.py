"""Open vSwitch on a host of a lab, with its userspace datapath: the kernel's needs a module.

That datapath makes tunnels of its own, so the host's underlay address must be on one of its bridges, with the cable as
the other port (docs.openvswitch.org, "Using Open vSwitch with DPDK": userspace tunnelling). The host sees ``br-phy``
where it otherwise sees ``eth0``.
"""

import shutil

from netagent.errors import EnvironmentProblem
from netagent.lab.command import ip_batch, search_path
from netagent.lab.layout import Layout, Seat
from netagent.lab.machine import Machine

BRIDGE = "br-phy"
_RUN = "/run/openvswitch"
_SOCKET = f"{_RUN}/db.sock"
_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_READY_WITHIN_S = 60.0


def require_vswitch() -> None:
    """Refuse by name what is missing for it."""
    if shutil.which("ovs-vswitchd", path=search_path()) is None:
        raise EnvironmentProblem(
            "an underlay of Open vSwitch needs ovs-vswitchd, not found on this machine",
            hint="on Debian: apt-get install openvswitch-switch",
        )


def start(machine: Machine) -> None:
    """Start the database and the switch of one machine, both empty."""
    database = f"{_RUN}/conf.db"
    machine.run("sh", "-ec", f"mkdir -p {_RUN}; ovsdb-tool create {database} {_SCHEMA}")
    options = ("-vconsole:warn", "-vfile:off", "-vsyslog:off")
    remote = f"--remote=punix:{_SOCKET}"
    machine.spawn("ovsdb", ["ovsdb-server", *options, remote, f"--pidfile={_RUN}/db.pid", database])
    socket = machine.path(_SOCKET)
    machine.wait_until("ovsdb", socket.exists, within_s=_READY_WITHIN_S)
    machine.run("ovs-vsctl", "--no-wait", "init")
    pidfile = f"--pidfile={_RUN}/ovs-vswitchd.pid"
    machine.spawn("vswitchd", ["ovs-vswitchd", *options, pidfile, f"unix:{_SOCKET}"])


def move_underlay(machine: Machine, layout: Layout, seat: Seat, interface: str, addresses: list[str]) -> None:
    """Put the cable ``interface`` below the bridge and the machine's ``addresses`` on it."""
    machine.run(
        *("ovs-vsctl", "--timeout=50", "add-br", BRIDGE),
        *("--", "set", "bridge", BRIDGE, "datapath_type=netdev", f'other-config:hwaddr="{seat.mac}"'),
        *("--", "add-port", BRIDGE, interface),
        *("--", "set", "interface", BRIDGE, f"mtu_request={layout.mtu}"),
    )
    off = [f"address del {address} dev {interface}" for address in addresses]
    on = [f"address add {address} dev {BRIDGE}{' nodad' if ':' in address else ''}" for address in addresses]
    ip_batch([*off, f"link set {BRIDGE} up", *on], netns=seat.netns)
    # The switch reads copies (AF_PACKET); without this the host would get everything twice.
    chain = f"type filter hook ingress device {interface} priority 0; policy drop;"
    machine.run("nft", f"add table netdev nalab; add chain netdev nalab cable {{ {chain} }}")
