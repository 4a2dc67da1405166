"""Masquerading: what leaves a network for the outside takes the host's address, and the four cases around it.

* A container that reaches a neighbour, or itself, through a published port: the neighbour would answer directly over
  the bridge, past the translation, so the request takes the bridge's address. Where bridged frames pass these hooks
  (br_netfilter) the kernel does not tell the inbound interface, but translates the neighbour's answer on the bridge;
  what is left then is the container's request to itself. Without ICC there are no answers over the bridge, and a
  mark tells such requests (``apart``).
* The host itself through 127.0.0.1: a container cannot answer a loopback address.
* What goes to a peer's containers by a plain route stays in its network, though it leaves by an interface of others.
* Destinations that a network exempts see its containers' own addresses, and a network may choose the address that it
  takes, one of the host's: the first of the interface need not be the one that its peers expect.
* Everything else keeps its source: containers see each other's and clients' real addresses.
"""

from netagent.firewall import apart
from netagent.model.address import Prefix
from netagent.model.network import Network
from netagent.plan.desired import Chain, ElementSet

SETS = (
    ElementSet(name="masquerade4", key="ipv4_addr", flags=("interval",)),
    ElementSet(name="masquerade6", key="ipv6_addr", flags=("interval",)),
    ElementSet(name="kept4", key="ipv4_addr . ipv4_addr", flags=("interval",)),
    ElementSet(name="kept6", key="ipv6_addr . ipv6_addr", flags=("interval",)),
    ElementSet(name="outbound4", key="ipv4_addr", data="ipv4_addr", flags=("interval",)),
    ElementSet(name="outbound6", key="ipv6_addr", data="ipv6_addr", flags=("interval",)),
)

CHAINS = (
    Chain(
        name="postrouting",
        hook="type nat hook postrouting priority srcnat; policy accept;",
        rules=(
            # The inbound interface is known here since Linux 5.7 (28f8bfd1ac94).
            "ct status dnat iifname . oifname @paths masquerade",
            f"ct status dnat {apart.HAS_MARK} masquerade",
            "ct status dnat ip saddr . ip daddr @hairpin4 masquerade",
            "ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade",
            "oifname @inside ip saddr 127.0.0.0/8 masquerade",
            "ip daddr @routed4 accept",
            "ip6 daddr @routed6 accept",
            "oifname != @inside ip saddr . ip daddr @kept4 accept",
            "oifname != @inside ip6 saddr . ip6 daddr @kept6 accept",
            "oifname != @inside snat ip to ip saddr map @outbound4",
            "oifname != @inside snat ip6 to ip6 saddr map @outbound6",
            "oifname != @inside ip saddr @masquerade4 masquerade",
            "oifname != @inside ip6 saddr @masquerade6 masquerade",
        ),
    ),
)


def elements(network: Network) -> dict[str, frozenset[str]]:
    """Return the elements of one network: its subnets, and where they keep their address or take a chosen one."""
    if network.internal or not network.masquerade:
        return {}
    found: dict[str, frozenset[str]] = {}
    for version in (4, 6):
        if version in network.routed:
            continue
        subnets = [prefix_text(subnet.prefix) for subnet in network.subnets if subnet.prefix.version == version]
        kept = [prefix_text(prefix) for prefix in network.masquerade_except if prefix.version == version]
        found[f"masquerade{version}"] = frozenset(subnets)
        if kept:
            found[f"kept{version}"] = frozenset(f"{subnet} . {prefix}" for subnet in subnets for prefix in kept)
        for address in network.outbound:
            if address.version == version:
                found[f"outbound{version}"] = frozenset(f"{subnet} : {address}" for subnet in subnets)
    return found


def prefix_text(prefix: Prefix) -> str:
    """Return a prefix as sets have it: a single address without its length."""
    return str(prefix.network_address if prefix.prefixlen == prefix.max_prefixlen else prefix)
