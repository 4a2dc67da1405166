"""Tunnel devices of Open vSwitch: GRE where the kernel has none. The only code that talks to it.

A network's device is the local port of a bridge of its own, so that other networks' packets never meet it. The bridge
has one more port, of type ``gre``, whose remote end is named by the flow (``remote_ip=flow``) and whose key by the
port. It floods and learns nothing (``fail_mode=secure``): a peer is a flow that sends frames for its MAC to its
underlay address, and one for each prefix behind it that takes what comes from there with a source in the prefix. What
comes from anybody else, or has another's source, meets no flow.

The bridge is marked with ``external_ids:netagent``, its local port like every link of ours.
"""

import json
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeAlias

from netagent.errors import EnvironmentProblem
from netagent.model.address import Address, Mac
from netagent.plan.desired import FdbEntry, Link, OvsGre, TunnelSource

_PREFIX = "nao"
_MARK = "netagent"
_COOKIE = 0x6E61
_PRIORITY = 10
_TUNNEL_PORT = 1
_TIMEOUT_S = 10
"""All other work on the kernel waits meanwhile."""
_KERNEL_DATAPATH = Path("/sys/module/openvswitch")
_DATABASE = Path("/var/run/openvswitch/db.sock")
_OUT = re.compile(r"in_port=LOCAL,dl_dst=(\S+) actions=set_field:(\S+)->tun_\w+,")
_IN = re.compile(rf"tun_(?:ipv6_)?src=([0-9a-f.:]+),in_port={_TUNNEL_PORT},(?:nw|ipv6)_src=(\S+) actions=LOCAL")

_Flow: TypeAlias = FdbEntry | TunnelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Flows:
    """The flows of one bridge of ours: where frames go, and what is taken from whom."""

    entries: frozenset[FdbEntry]
    sources: frozenset[TunnelSource]


class _NoAnswer(EnvironmentProblem):
    """Open vSwitch let the time go by, and would again."""


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


def add_flows(flows: Iterable[_Flow]) -> None:
    """Add or replace flows, all of one bridge at once; a bridge that is missing keeps no other from its own."""
    failures: list[EnvironmentProblem] = []
    for bridge, group in _by_device(flows).items():
        lines = (f"cookie={_COOKIE:#x},priority={_PRIORITY},{_match(flow)},actions={_actions(flow)}" for flow in group)
        try:
            _ofctl("--bundle", "add-flows", bridge, "-", stdin="\n".join(lines))
        except _NoAnswer:
            raise
        except EnvironmentProblem as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


def delete_flows(flows: Iterable[_Flow]) -> None:
    """Delete flows; absent ones are no error, nor is a bridge that is gone."""
    groups = _by_device(flows)
    present = kinds() if groups else {}
    for bridge, group in groups.items():
        if bridge in present:
            lines = (f"delete_strict priority={_PRIORITY},{_match(flow)}" for flow in group)
            _ofctl("--bundle", "add-flows", bridge, "-", stdin="\n".join(lines))


def flows(bridge: str) -> Flows:
    """Return the flows of a bridge of ours."""
    text = _ofctl("--no-stats", "--no-names", "dump-flows", bridge, f"cookie={_COOKIE:#x}/-1")
    out = ((Mac(match[1]), ip_address(match[2])) for match in _OUT.finditer(text))
    # A whole address is printed without its length.
    taken = ((ip_address(match[1]), ip_network(match[2])) for match in _IN.finditer(text))
    return Flows(
        entries=frozenset(FdbEntry(device=bridge, mac=mac, destination=end) for mac, end in out),
        sources=frozenset(TunnelSource(device=bridge, peer=peer, prefix=prefix) for peer, prefix in taken),
    )


def _port_of(bridge: str) -> str:
    return f"nag{bridge[3:]}"


def _bridge_of(port: str) -> str:
    return f"{_PREFIX}{port[3:]}"


def _by_device(flows: Iterable[_Flow]) -> dict[str, list[_Flow]]:
    groups: dict[str, list[_Flow]] = {}
    for flow in flows:
        groups.setdefault(flow.device, []).append(flow)
    return groups


def _match(flow: _Flow) -> str:
    match flow:
        case FdbEntry(mac=mac):
            return f"in_port=LOCAL,dl_dst={mac}"
        case TunnelSource(peer=peer, prefix=prefix):
            inner = f"ip,nw_src={prefix}" if prefix.version == 4 else f"ipv6,ipv6_src={prefix}"
            return f"in_port={_TUNNEL_PORT},{_outer(peer, 'src')}={peer},{inner}"


def _actions(flow: _Flow) -> str:
    match flow:
        case FdbEntry(destination=destination):
            return f"set_field:{destination}->{_outer(destination, 'dst')},output:{_TUNNEL_PORT}"
        case TunnelSource():
            return "LOCAL"


def _outer(address: Address, side: str) -> str:
    return f"tun_{'ipv6_' if address.version == 6 else ''}{side}"


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
        raise _NoAnswer(f"{command[0]} does not answer", hint="is Open vSwitch running?") from None
    if done.returncode == -signal.SIGALRM:
        raise _NoAnswer(f"Open vSwitch does not answer {command[0]}", hint="is ovs-vswitchd running?")
    if done.returncode != 0:
        said = " ".join(done.stderr.split()[-30:]) or f"status {done.returncode}"
        raise EnvironmentProblem(f"{command[0]} failed: {said}", hint="is Open vSwitch running?")
    return done.stdout
