"""Lanes: what goes the usual way between a network's bridge and its peers is accepted by as few lookups as it takes.

The rules of ``isolate`` look a dozen times into sets, each time by an interface's name. Here one look at the pair of
interfaces tells which few of them concern a packet; where these leave a doubt it goes on to all the rules. So lanes
drop nothing and accept nothing that those would not: without an element here the same packets pass, only later.
"""

from collections.abc import Collection

from netagent.plan.desired import Chain, ElementSet

SETS = (ElementSet(name="lanes", key="ifname . ifname", data="verdict"),)

FIND = "iifname . oifname vmap @lanes"
"""The rule that leads a forwarded packet to its lane."""

CHAINS = (
    Chain(name="to_tunnel", rules=("ip saddr != @routed4 accept", "ip6 saddr != @routed6 accept")),
    Chain(name="from_tunnel", rules=("fib saddr . iif oif exists accept",)),
    Chain(
        name="to_way",
        rules=(
            # These may be a container's own tunnel packets, and the next ones a forged source.
            "udp dport 4789 return",
            "meta l4proto gre return",
            "ip saddr @routed4 return",
            "ip6 saddr @routed6 return",
            "ip daddr . iifname @remote4 accept",
            "ip6 daddr . iifname @remote6 accept",
        ),
    ),
    Chain(
        name="from_way",
        rules=("ip saddr . oifname @remote4 accept", "ip6 saddr . oifname @remote6 accept"),
    ),
)


def tunnel_elements(
    bridge: str, tunnel: str, *, is_shared: bool = False, is_checked: bool = False
) -> dict[str, frozenset[str]]:
    """Return the lanes between a network's ``bridge`` and its own ``tunnel`` device.

    ``is_shared``: the bridge has ports that are no containers'. ``is_checked``: what comes out of the tunnel has been
    seen by ``tunnel`` while it was packed.
    """
    out, back = ("jump to_tunnel" if is_shared else "accept"), ("accept" if is_checked else "jump from_tunnel")
    return {"lanes": frozenset({f"{bridge} . {tunnel} : {out}", f"{tunnel} . {bridge} : {back}"})}


def way_elements(bridge: str, ways: Collection[str]) -> dict[str, frozenset[str]]:
    """Return the lanes between a network's ``bridge`` and interfaces that it shares with others (``routed``)."""
    out = {f"{bridge} . {way} : jump to_way" for way in ways}
    return {"lanes": frozenset(out | {f"{way} . {bridge} : jump from_way" for way in ways})}
