"""Masquerading: what leaves a network for the outside takes the host's address, and the four cases around it.

* A container that reaches a neighbour, or itself, through a published port: the neighbour would answer directly over
  the bridge, past the translation, so the request takes the bridge's address. Where bridged frames pass these hooks
  (br_netfilter) the kernel does not tell the inbound interface, but translates the neighbour's answer on the bridge;
  what is left then is the container's request to itself.
* The host itself through 127.0.0.1: a container cannot answer a loopback address.
* What goes to a peer's containers by a plain route stays in its network, though it leaves by an interface of others.
* Everything else keeps its source: containers see each other's and clients' real addresses.
"""

from netagent.model.network import Network
from netagent.plan.desired import Chain, ElementSet

SETS = (
    ElementSet(name="masquerade4", key="ipv4_addr", flags=("interval",)),
    ElementSet(name="masquerade6", key="ipv6_addr", flags=("interval",)),
)

CHAINS = (
    Chain(
        name="postrouting",
        hook="type nat hook postrouting priority srcnat; policy accept;",
        rules=(
            # The inbound interface is known here since Linux 5.7 (28f8bfd1ac94).
            "ct status dnat iifname . oifname @paths masquerade",
            "ct status dnat ip saddr . ip daddr @hairpin4 masquerade",
            "ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade",
            "oifname @inside ip saddr 127.0.0.0/8 masquerade",
            "ip daddr @routed4 accept",
            "ip6 daddr @routed6 accept",
            "oifname != @inside ip saddr @masquerade4 masquerade",
            "oifname != @inside ip6 saddr @masquerade6 masquerade",
        ),
    ),
)


def elements(network: Network) -> dict[str, frozenset[str]]:
    """Return the elements of one network: the subnets whose outbound packets are masqueraded."""
    if network.internal or not network.masquerade:
        return {}
    return {
        f"masquerade{version}": frozenset(
            str(subnet.prefix) for subnet in network.subnets if subnet.prefix.version == version
        )
        for version in (4, 6)
    }
