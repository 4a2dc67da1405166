"""Tunnels: VXLAN packets of our networks are taken from known peers alone (CVE-2023-28840 was the lack of it).

The network number in a packet (RFC 7348, 5) says whether it is for us: other programs may have VXLAN devices on the
same port. What the packet carries is checked when it comes out of the tunnel, here for packets to the host itself and
in ``isolate`` for those to containers: its source must be routed back through the same tunnel.

GRE packets with inner Ethernet are taken from known peers alone where the kernel's device is up (``anykey``): it takes
every key, and whatever no other device claims. Open vSwitch looks at key and peer itself.
"""

from netagent.firewall import isolate, routed
from netagent.plan.desired import Chain, ElementSet, Gretap, State, Vxlan

SETS = (
    ElementSet(name="vnis", key="typeof @th,96,24"),
    ElementSet(name="peers4", key="typeof ip saddr . @th,96,24"),
    ElementSet(name="peers6", key="typeof ip6 saddr . @th,96,24"),
    ElementSet(name="grepeers4", key="ipv4_addr"),
    ElementSet(name="grepeers6", key="ipv6_addr"),
    ElementSet(name="anykey", key="inet_proto"),
)

CHAINS = (
    Chain(
        name="input",
        hook="type filter hook input priority filter; policy accept;",
        rules=(
            "udp dport 4789 @th,96,24 @vnis ip saddr . @th,96,24 != @peers4 counter drop",
            "udp dport 4789 @th,96,24 @vnis ip6 saddr . @th,96,24 != @peers6 counter drop",
            "meta l4proto @anykey @th,16,16 0x6558 ip saddr != @grepeers4 counter drop",
            "meta l4proto @anykey @th,16,16 0x6558 ip6 saddr != @grepeers6 counter drop",
            *isolate.FROM_TUNNELS,
            *routed.STRANGERS,
        ),
    ),
)


def elements(state: State) -> dict[str, frozenset[str]]:
    """Return the elements for the tunnel devices in a driver's ``state`` and the peers they lead to."""
    numbers = {name: link.kind.vni for name, link in state.links.items() if isinstance(link.kind, Vxlan)}
    peers = [(e.destination, numbers[e.device]) for e in state.fdb if e.device in numbers]
    ends = {e.destination for e in state.fdb if e.device not in numbers}
    ends |= {route.encap.destination for route in state.routes if route.encap is not None}
    return {
        "vnis": frozenset(str(vni) for vni in numbers.values()),
        **{f"peers{v}": frozenset(f"{peer} . {vni}" for peer, vni in peers if peer.version == v) for v in (4, 6)},
        "anykey": frozenset({"gre"} if any(isinstance(link.kind, Gretap) for link in state.links.values()) else ()),
        **{f"grepeers{v}": frozenset(str(end) for end in ends if end.version == v) for v in (4, 6)},
    }
