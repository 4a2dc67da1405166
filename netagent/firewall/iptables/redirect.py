"""Redirects (``firewall.redirect``): this host sends its containers none."""

from netagent.firewall.iptables.pieces import PREFIX, Frame, frames

FRAMES: tuple[Frame, ...] = (
    *frames(
        "OUTPUT",
        table="mangle",
        hooks=("OUTPUT",),
        families=("ip",),
        head=(f"-p icmp -m icmp --icmp-type 5 -j {PREFIX}REDIRECTS",),
    ),
    *frames(
        "OUTPUT",
        table="mangle",
        hooks=("OUTPUT",),
        families=("ip6",),
        head=(f"-p ipv6-icmp -m icmp6 --icmpv6-type 137 -j {PREFIX}REDIRECTS",),
    ),
    *frames("REDIRECTS", table="mangle"),
)
