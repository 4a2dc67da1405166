"""Sources of other hosts' containers where no device of the network's own tells them apart.

Packets on plain routes come in by the underlay's interface, whatever network they belong to. So the firewall knows
their sources instead: ``remote`` pairs every prefix that lies behind a peer with the network's interfaces, ``routed``
holds the same prefixes alone, and ``ways`` the interfaces by which such packets may come in. A packet of a peer's
container is taken if it comes by one of the ways and goes to the bridge that its source belongs to. ``near`` has of
``remote`` the blocks of the usual length and the network's bridge, for ``lanes``: in a hash, by their masked addresses.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from netagent.model.address import Prefix
from netagent.plan.desired import ElementSet

USUAL = {4: 24, 6: 80}
"""The prefix length of blocks as they are by default, by IP version."""
MASKS = {4: IPv4Network((0, USUAL[4])).netmask, 6: IPv6Network((0, USUAL[6])).netmask}
"""Its mask."""

SETS = (
    ElementSet(name="near4", key="ifname . ipv4_addr"),
    ElementSet(name="near6", key="ifname . ipv6_addr"),
    ElementSet(name="ways", key="ifname"),
    ElementSet(name="routed4", key="ipv4_addr", flags=("interval",)),
    ElementSet(name="routed6", key="ipv6_addr", flags=("interval",)),
    ElementSet(name="remote4", key="ipv4_addr . ifname", flags=("interval",)),
    ElementSet(name="remote6", key="ipv6_addr . ifname", flags=("interval",)),
)

EXEMPTIONS = frozenset({"ways"})
"""Sets that a rule below makes an exception of."""

STRANGERS = (
    # A source that a peer's container has, from where no peer is.
    "ip saddr @routed4 iifname != @ways counter drop",
    "ip6 saddr @routed6 iifname != @ways counter drop",
)
"""Rules for every hook that packets from other machines pass."""


def elements(prefixes: Iterable[Prefix], bridge: str, devices: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the elements for ``prefixes`` behind peers of a network with a ``bridge`` and ``devices`` of its own."""
    texts: dict[int, set[str]] = {4: set(), 6: set()}
    near: dict[int, set[str]] = {4: set(), 6: set()}
    for prefix in prefixes:
        if prefix.prefixlen == USUAL[prefix.version]:
            near[prefix.version].add(f"{bridge} . {prefix.network_address}")
        is_single = prefix.prefixlen == prefix.max_prefixlen
        texts[prefix.version].add(str(prefix.network_address if is_single else prefix))
    named = (bridge, *devices)
    return {
        **{f"near{version}": frozenset(group) for version, group in near.items()},
        **{f"routed{version}": frozenset(group) for version, group in texts.items()},
        **{
            f"remote{version}": frozenset(f"{text} . {name}" for text in group for name in named)
            for version, group in texts.items()
        },
    }
