"""Lanes: what goes the usual way between a network's bridge and its peers is accepted by as few lookups as it takes.

The rules of ``isolate`` look a dozen times into sets, each time by an interface's name. Here one look at the pair of
interfaces tells which few of them concern a packet; where these leave a doubt it goes on to all the rules. So lanes
drop nothing, and without an element here the same packets pass, only later. They ask nothing that was asked before: of
a container's source ``spoof`` at its port, of what a tunnel brings ``tunnel`` or Open vSwitch while it was packed.
"""

from collections.abc import Collection

from netagent.firewall.routed import MASKS
from netagent.plan.desired import Chain, ElementSet

SETS = (ElementSet(name="lanes", key="ifname . ifname", data="verdict"),)

FIND = "iifname . oifname vmap @lanes"
"""The rule that leads a forwarded packet to its lane."""

_NO_TUNNEL = "@th,16,16 != 4789"
"""The destination port, of whatever protocol: by its name, UDP alone, it would take twice as long."""

CHAINS = (
    Chain(name="to_tunnel", rules=("ip saddr != @routed4 accept", "ip6 saddr != @routed6 accept")),
    Chain(
        name="to_way",
        rules=(
            f"{_NO_TUNNEL} ip protocol != gre iifname . ip daddr & {MASKS[4]} @near4 accept",
            f"{_NO_TUNNEL} meta l4proto != gre iifname . ip6 daddr & {MASKS[6]} @near6 accept",
            "goto shared_to_way",
        ),
    ),
    Chain(
        name="shared_to_way",
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
        rules=(
            f"oifname . ip saddr & {MASKS[4]} @near4 accept",
            f"oifname . ip6 saddr & {MASKS[6]} @near6 accept",
            "ip saddr . oifname @remote4 accept",
            "ip6 saddr . oifname @remote6 accept",
        ),
    ),
)


def tunnel_elements(bridge: str, tunnel: str, *, is_shared: bool = False) -> dict[str, frozenset[str]]:
    """Return the lanes between a network's ``bridge`` and its own ``tunnel`` device.

    ``is_shared``: the bridge has ports that are no containers'.
    """
    out = "jump to_tunnel" if is_shared else "accept"
    return {"lanes": frozenset({f"{bridge} . {tunnel} : {out}", f"{tunnel} . {bridge} : accept"})}


def way_elements(bridge: str, ways: Collection[str], *, is_shared: bool = False) -> dict[str, frozenset[str]]:
    """Return the lanes between a network's ``bridge`` and interfaces that it shares with others (``routed``).

    ``is_shared``: the bridge has ports that are no containers'.
    """
    lane = "shared_to_way" if is_shared else "to_way"
    out = {f"{bridge} . {way} : jump {lane}" for way in ways}
    return {"lanes": frozenset(out | {f"{way} . {bridge} : jump from_way" for way in ways})}
