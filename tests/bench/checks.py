"""The checks of netagent's firewall as one would write them by hand with nft, for two hosts and a container on each.

To measure against: addresses stand in the rules, where netagent has sets, and interfaces are compared by number. MAC,
IP and ARP are the container's at the bridge's port; tunnel packets come from the known peer, with an inner source in
its block; between bridge and peer goes what has the addresses of the two blocks; nothing else enters a network unasked
for; the rest is accepted.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from netagent.lab.underlay import UNDERLAY_INTERFACE
from tests.bench.way import Place

KEY = "77"
"""The number of the network in tunnels: VXLAN's, GRE's key."""
VXLAN_PORT = 4790
KERNEL_GRE = "kernel-gre"
"""The driver ``gre`` by the kernel's device; ``gre`` is Open vSwitch's."""

BEGIN = """
table bridge by_hand {
    chain spoof { type filter hook prerouting priority -300; policy accept; }
}
table inet by_hand {
    chain input { type filter hook input priority filter; policy accept; }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        oifname "hb*" drop
    }
}
"""
_PORT = """
table bridge by_hand {{
    chain {port} {{
        ether saddr != {mac} drop
        ip saddr {own}.2 accept
        arp saddr ether {mac} arp saddr ip {own}.2 accept
        drop
    }}
}}
insert rule bridge by_hand spoof iifname {port} goto {port}
"""
_WAY = """
insert rule inet by_hand forward iif {bridge} oif {device} ip saddr {own}.0/24 ip daddr {far}.0/24 accept
insert rule inet by_hand forward iif {device} oif {bridge} ip saddr {far}.0/24 accept
"""
_FROM_TUNNEL = """
table inet by_hand {{
    chain {tunnel} {{
        {known} accept
        drop
    }}
}}
add rule inet by_hand input {packets} jump {tunnel}
"""
_DEVICES = {"route": UNDERLAY_INTERFACE, "vxlan": "hv", "gre": "hg", KERNEL_GRE: "hg"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The container behind a host in the network ``number``, and its peer.

    ``own`` and ``far`` are the leading octets of the addresses behind either.
    """

    number: int
    container: str
    own: str
    far: str
    peer: str

    @property
    def leading(self) -> str:
        """The leading octets of the addresses behind the peer as one number."""
        return "0x" + "".join(f"{int(octet):02x}" for octet in self.far.split("."))


def check_by_hand(host: Place, driver: str, what: Checked) -> None:
    """Put the checks for a network of a driver in place, with its devices there already."""
    shown = host.run("ip", "-n", what.container, "-j", "link", "show", "dev", "eth0")
    text = (_PORT + _WAY).format(
        port=f"hc{what.number}",
        mac=json.loads(shown.stdout)[0]["address"],
        bridge=f"hb{what.number}",
        device=_DEVICES[driver],
        own=what.own,
        far=what.far,
    )
    host.run("nft", "-f", "-", stdin=text)
    _ARRIVALS[driver](host, what)


def _from_underlay(host: Place, what: Checked) -> None:
    rule = f"iif != {UNDERLAY_INTERFACE} ip saddr {what.far}.0/24 drop"
    host.run("nft", "add", "rule", "inet", "by_hand", "input", *rule.split())


def _from_vxlan(host: Place, what: Checked) -> None:
    known = f"ip saddr {what.peer} @th,96,24 {KEY} @th,224,16 0x0800 @th,336,24 {what.leading}"
    text = _FROM_TUNNEL.format(tunnel="vxlan", packets=f"udp dport {VXLAN_PORT}", known=known)
    host.run("nft", "-f", "-", stdin=text)


def _from_kernel_gre(host: Place, what: Checked) -> None:
    # A header with a key alone: eight bytes, then the inner Ethernet header.
    known = f"@th,0,32 0x20006558 ip saddr {what.peer} @th,32,32 {KEY} @th,160,16 0x0800 @th,272,24 {what.leading}"
    text = _FROM_TUNNEL.format(tunnel="gre", packets="meta l4proto gre", known=known)
    host.run("nft", "-f", "-", stdin=text)


def _from_switch(host: Place, what: Checked) -> None:
    # The port itself takes packets of the known peer and key alone.
    for flow in (
        f"priority=20,in_port=hgp,ip,nw_src={what.far}.0/24,actions=LOCAL",
        "priority=10,in_port=hgp,actions=drop",
    ):
        host.run("ovs-ofctl", "add-flow", "hg", flow)


_ARRIVALS: dict[str, Callable[[Place, Checked], None]] = {
    "route": _from_underlay,
    "vxlan": _from_vxlan,
    "gre": _from_switch,
    KERNEL_GRE: _from_kernel_gre,
}
