"""Tunnels: VXLAN packets of our networks are taken from known peers alone (CVE-2023-28840 was the lack of it).

The network number in a packet (RFC 7348, 5) says whether it is for us: other programs may have VXLAN devices on the
same port. What the packet carries is checked when it comes out of the tunnel, here for packets to the host itself and
in ``isolate`` for those to containers: its source must be routed back through the same tunnel.
"""

from netagent.firewall import isolate, routed
from netagent.plan.desired import Chain, ElementSet, State, Vxlan

SETS = (
    ElementSet(name="vnis", key="typeof @th,96,24"),
    ElementSet(name="peers4", key="typeof ip saddr . @th,96,24"),
    ElementSet(name="peers6", key="typeof ip6 saddr . @th,96,24"),
)

CHAINS = (
    Chain(
        name="input",
        hook="type filter hook input priority filter; policy accept;",
        rules=(
            "udp dport 4789 @th,96,24 @vnis ip saddr . @th,96,24 != @peers4 counter drop",
            "udp dport 4789 @th,96,24 @vnis ip6 saddr . @th,96,24 != @peers6 counter drop",
            *isolate.FROM_TUNNELS,
            *routed.STRANGERS,
        ),
    ),
)


def elements(state: State) -> dict[str, frozenset[str]]:
    """Return the elements for the VXLAN devices in a driver's ``state`` and the peers they lead to."""
    numbers = {name: link.kind.vni for name, link in state.links.items() if isinstance(link.kind, Vxlan)}
    peers = [(e.destination, numbers[e.device]) for e in state.fdb if e.device in numbers]
    return {
        "vnis": frozenset(str(vni) for vni in numbers.values()),
        **{f"peers{v}": frozenset(f"{peer} . {vni}" for peer, vni in peers if peer.version == v) for v in (4, 6)},
    }
