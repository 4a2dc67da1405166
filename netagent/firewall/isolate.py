"""Isolation: which interfaces may forward to which.

``paths`` holds the pairs of one network: its bridge to itself and to its tunnel, both ways. Whatever else would enter
a network is dropped unless it answers something or goes to a published port. An interface is in ``inside`` before it
is up and until it is gone, so there is no moment in which it is open. Between containers of ``separate`` networks
(``icc=false``) only published ports, links and answers pass; frames between them are for ``apart``. What is to
reach containers by their own addresses is let in by ``direct``. ``lanes`` accepts the usual before all of this.
"""

from netagent.firewall import apart, counting, direct, lanes, linked, publish, routed
from netagent.plan.desired import Chain, ElementSet

SETS = (
    ElementSet(name="inside", key="ifname"),
    ElementSet(name="tunnels", key="ifname"),
    ElementSet(name="internal", key="ifname"),
    ElementSet(name="separate", key="ifname"),
    ElementSet(name="paths", key="ifname . ifname"),
)

FROM_TUNNELS = ("iifname @tunnels fib saddr . iif oif missing jump astray",)
"""Rules for every hook that packets out of tunnels pass."""

CHAINS = (
    Chain(
        name="astray",
        # Of a tunnel come only addresses that lie behind it: what a stranger may have injected has none. Where a peer
        # may be reached past the tunnel as well, its addresses are known by ``remote``.
        rules=("ip saddr . iifname @remote4 return", "ip6 saddr . iifname @remote6 return", "counter drop"),
    ),
    Chain(
        name="apart",
        rules=(
            f"ct status dnat {apart.PUT_MARK} return",
            "ct state established,related return",
            *linked.RETURNS,
            "drop",
        ),
    ),
    Chain(
        name="forward",
        hook="type filter hook forward priority filter; policy accept;",
        rules=(
            counting.COUNT,
            lanes.FIND,
            publish.FROM_LOOPBACK,
            *FROM_TUNNELS,
            *routed.STRANGERS,
            # A container's own tunnel packets would reach the peers with this host's address on them. What few packets
            # are is asked first: a name is looked up in ten times the time of a comparison.
            "udp dport 4789 iifname @inside oifname != @inside @th,96,24 @vnis counter drop",
            "meta l4proto gre ip daddr @grepeers4 iifname @inside oifname != @inside counter drop",
            "meta l4proto gre ip6 daddr @grepeers6 iifname @inside oifname != @inside counter drop",
            "iifname @separate oifname @separate jump apart",
            "iifname . oifname @paths accept",
            # By plain routes: from a peer's container into its own network, and the other way.
            "meta nfproto ipv4 iifname @ways ip saddr . oifname @remote4 accept",
            "meta nfproto ipv6 iifname @ways ip6 saddr . oifname @remote6 accept",
            "meta nfproto ipv4 oifname @ways ip daddr . iifname @remote4 accept",
            "meta nfproto ipv6 oifname @ways ip6 daddr . iifname @remote6 accept",
            "iifname @internal drop",
            "oifname @internal drop",
            "ct state established,related accept",
            "oifname @inside ct status dnat accept",
            *direct.ACCEPTS,
            "oifname @inside drop",
            # A peer's container has no business beyond this host's own containers: it leaves through its own host.
            "iifname @tunnels drop",
            "ip saddr @routed4 drop",
            "ip6 saddr @routed6 drop",
            # Nor has anybody else with a peer's containers, by this host.
            "ip daddr @routed4 drop",
            "ip6 daddr @routed6 drop",
        ),
    ),
)


def elements(bridge: str, tunnel: str | None, *, internal: bool, icc: bool = True) -> dict[str, frozenset[str]]:
    """Return the elements of one network with this bridge and tunnel device; without ``icc`` it is separate."""
    inside = frozenset({bridge} | ({tunnel} if tunnel else set()))
    paths = {f"{bridge} . {bridge}"}
    if tunnel:
        paths |= {f"{bridge} . {tunnel}", f"{tunnel} . {bridge}"}
    return {
        "inside": inside,
        "tunnels": frozenset({tunnel} if tunnel else set()),
        "internal": frozenset({bridge} if internal else set()),
        "separate": frozenset(() if icc else {bridge}),
        "paths": frozenset(paths),
    }
