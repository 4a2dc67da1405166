"""The checks of netagent's firewall as one would write them by hand with nft, for two hosts and a container on each.

To measure against: addresses stand in the rules, where netagent has sets, and interfaces are compared by number. MAC,
IP and ARP are the container's at the bridge's port; tunnel packets come from the known peer, with an inner source in
its block; between bridge and peer goes what has the addresses of the two blocks; nothing else enters a network unasked
for; the rest is accepted.
"""

import json

from netagent.lab.host import Host
from netagent.lab.underlay import UNDERLAY_INTERFACE

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
_ARRIVALS = {
    "route": "add rule inet by_hand input iif != {device} ip saddr {far}.0/24 drop",
    "vxlan": """
table inet by_hand {{
    chain vxlan {{
        ip saddr {peer} @th,96,24 {key} @th,224,16 0x0800 @th,336,24 {leading} accept
        drop
    }}
}}
add rule inet by_hand input udp dport {port_number} jump vxlan
""",
    # Open vSwitch takes packets of the known peer and key alone.
    "gre": "",
}
_DEVICES = {"route": UNDERLAY_INTERFACE, "vxlan": "hv", "gre": "hg"}


def check_by_hand(host: Host, peer: Host, driver: str, number: int, *, key: str, vxlan_port: int) -> None:
    """Put the rules for the network ``number`` of a driver in place, with its devices there already."""
    own, far = (f"10.6{number}.{each.name[1:]}" for each in (host, peer))
    shown = host.run("ip", "-n", f"{driver}-hand", "-j", "link", "show", "dev", "eth0")
    text = (_PORT + _WAY + _ARRIVALS[driver]).format(
        port=f"hc{number}",
        mac=json.loads(shown.stdout)[0]["address"],
        bridge=f"hb{number}",
        device=_DEVICES[driver],
        own=own,
        far=far,
        peer=peer.ip,
        key=key,
        leading="0x" + "".join(f"{int(octet):02x}" for octet in far.split(".")),
        port_number=vxlan_port,
    )
    host.run("nft", "-f", "-", stdin=text)
