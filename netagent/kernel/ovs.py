"""Tunnel devices of Open vSwitch: GRE where the kernel has none. The only code that talks to it.

A network's device is the local port of a bridge of its own, so that other networks' packets never meet it. The bridge
has one more port, of type ``gre``, whose remote end is named by the flow (``remote_ip=flow``) and whose key by the
port. It floods and learns nothing (``fail_mode=secure``): a peer is two flows, one that sends frames for the peer's MAC
to the peer's underlay address and one that takes what comes from there. What comes from anybody else meets no flow.

The bridge is marked with ``external_ids:netagent``, its local port like every link of ours.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netagent.errors import EnvironmentProblem
from netagent.model.address import Mac
from netagent.plan.desired import FdbEntry, Link, OvsGre

_PREFIX = "nao"
_MARK = "netagent"
_COOKIE = 0x6E61
_TUNNEL_PORT = 1
_TIMEOUT_S = 10
"""All other work on the kernel waits meanwhile."""
_KERNEL_DATAPATH = Path("/sys/module/openvswitch")
_DATABASE = Path("/var/run/openvswitch/db.sock")
_OUT = re.compile(r"in_port=LOCAL,dl_dst=(\S+) actions=set_field:(\S+)->tun_\w+,")
_IN = re.compile(r"tun_(?:ipv6_)?src=([0-9a-f.:]+)")


def is_running() -> bool:
    """Tell whether there is an Open vSwitch on this host that could hold something of ours."""
    return _DATABASE.exists()


def is_port(name: str) -> bool:
    """Tell whether a link of ours of that name is a port of Open vSwitch."""
    return name.startswith(_PREFIX)


def put_bridge(link: Link, kind: OvsGre) -> None:
    """Make the bridge behind ``link``, or bring the one that is there to what ``link`` says."""
    name, port = link.name, _port_of(link.name)
    datapath = "system" if _KERNEL_DATAPATH.exists() else "netdev"
    options = (f"options:local_ip={kind.local}", "options:remote_ip=flow", f"options:key={kind.key}")
    address = () if link.mac is None else (f'other-config:hwaddr="{link.mac}"',)
    _vsctl(
        *("--may-exist", "add-br", name),
        *("--", "set", "bridge", name, f"datapath_type={datapath}", "fail_mode=secure", *address),
        *("--", "br-set-external-id", name, _MARK, link.alias),
        *("--", "--may-exist", "add-port", name, port),
        *("--", "set", "interface", port, "type=gre", f"ofport_request={_TUNNEL_PORT}", *options),
        *("--", "set", "interface", name, f"mtu_request={link.mtu}"),
    )


def delete_bridges(names: Iterable[str]) -> None:
    """Delete bridges of ours; absent ones are no error."""
    commands = [("--if-exists", "del-br", name) for name in names]
    _vsctl(*(word for command in commands for word in ("--", *command)))


def kinds() -> Mapping[str, OvsGre]:
    """Return what the tunnel ports of ours are, by the name of their bridge; a port that is not as ours is left out."""
    if not is_running():
        return {}
    listing = json.loads(_vsctl("--format=json", "--columns=name,type,options", "list", "interface"))
    found = {}
    for name, kind, (_, options) in listing["data"]:
        given: dict[str, str] = dict(options)
        if (
            kind == "gre"
            and given.get("remote_ip") == "flow"
            and "local_ip" in given
            and given.get("key", "").isdigit()
        ):
            found[_bridge_of(name)] = OvsGre(key=int(given["key"]), local=ip_address(given["local_ip"]))
    return found


def marked() -> frozenset[str]:
    """Return the names of all bridges that bear our mark."""
    if not is_running():
        return frozenset()
    listing: Mapping[str, Any] = json.loads(_vsctl("--format=json", "--columns=name,external_ids", "list", "bridge"))
    return frozenset(name for name, (_, marks) in listing["data"] if _MARK in dict(marks))


def add_flows(entries: Iterable[FdbEntry]) -> None:
    """Add or replace both flows of each entry, all of one bridge at once."""
    for bridge, group in _by_device(entries).items():
        lines = [flow for entry in group for flow in (_flow_out(entry), _flow_in(entry))]
        _ofctl("--bundle", "add-flows", bridge, "-", stdin="\n".join(lines))


def delete_flows(entries: Iterable[FdbEntry]) -> None:
    """Delete both flows of each entry; absent ones are no error, nor is a bridge that is gone."""
    groups = _by_device(entries)
    present = kinds() if groups else {}
    for bridge, group in groups.items():
        if bridge in present:
            kept = flows(bridge) - set(group)
            lines = [f"delete_strict priority=10,{_match_out(entry)}" for entry in group]
            ends = {entry.destination for entry in group} - {entry.destination for entry in kept}
            lines += [f"delete_strict priority=10,{_match_in(entry)}" for entry in group if entry.destination in ends]
            _ofctl("--bundle", "add-flows", bridge, "-", stdin="\n".join(lines))


def flows(bridge: str) -> frozenset[FdbEntry]:
    """Return the peers of which a bridge has both flows."""
    text = _ofctl("--no-stats", "--no-names", "dump-flows", bridge, f"cookie={_COOKIE:#x}/-1")
    taken = {ip_address(match[1]) for match in _IN.finditer(text)}
    peers = [(Mac(match[1]), ip_address(match[2])) for match in _OUT.finditer(text)]
    return frozenset(FdbEntry(device=bridge, mac=mac, destination=end) for mac, end in peers if end in taken)


def _port_of(bridge: str) -> str:
    return f"nag{bridge[3:]}"


def _bridge_of(port: str) -> str:
    return f"{_PREFIX}{port[3:]}"


def _by_device(entries: Iterable[FdbEntry]) -> dict[str, list[FdbEntry]]:
    groups: dict[str, list[FdbEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.device, []).append(entry)
    return groups


def _field(entry: FdbEntry, side: str) -> str:
    return f"tun_{'ipv6_' if entry.destination.version == 6 else ''}{side}"


def _match_out(entry: FdbEntry) -> str:
    return f"in_port=LOCAL,dl_dst={entry.mac}"


def _match_in(entry: FdbEntry) -> str:
    return f"in_port={_TUNNEL_PORT},{_field(entry, 'src')}={entry.destination}"


def _flow_out(entry: FdbEntry) -> str:
    actions = f"set_field:{entry.destination}->{_field(entry, 'dst')},output:{_TUNNEL_PORT}"
    return f"cookie={_COOKIE:#x},priority=10,{_match_out(entry)},actions={actions}"


def _flow_in(entry: FdbEntry) -> str:
    return f"cookie={_COOKIE:#x},priority=10,{_match_in(entry)},actions=LOCAL"


def _vsctl(*words: str) -> str:
    return _run(["ovs-vsctl", f"--timeout={_TIMEOUT_S}", *words])


def _ofctl(*words: str, stdin: str = "") -> str:
    return _run(["ovs-ofctl", "--protocols=OpenFlow13", f"--timeout={_TIMEOUT_S}", *words], stdin=stdin)


def _run(command: Sequence[str], *, stdin: str = "") -> str:
    try:
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False, timeout=_TIMEOUT_S + 5)
    except FileNotFoundError:
        raise EnvironmentProblem(
            f"{command[0]} is missing, and this kernel has no GRE of its own",
            hint="install openvswitch-switch, or load the kernel module ip_gre",
        ) from None
    except subprocess.TimeoutExpired:
        raise EnvironmentProblem(f"{command[0]} does not answer", hint="is Open vSwitch running?") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()[-30:]) or f"status {done.returncode}"
        raise EnvironmentProblem(f"{command[0]} failed: {said}", hint="is Open vSwitch running?")
    return done.stdout
