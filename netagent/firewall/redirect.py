"""Redirects: this host tells no container of a shorter way, because there is none that a container may use.

Packets between hosts, and those to a neighbour's published port, go back out of the bridge that they came from; the
kernel answers the sender with an ICMP redirect (RFC 4861, 8; RFC 1122, 3.2.2.2). For IPv6 no setting turns that off,
and for IPv4 ``send_redirects`` of ``all`` overrules a bridge's own.
"""

from netagent.firewall import counting
from netagent.plan.desired import Chain

CHAINS = (
    Chain(
        name="output_filter",
        hook="type filter hook output priority filter; policy accept;",
        rules=(
            counting.COUNT,
            "icmp type redirect oifname @inside drop",
            "icmpv6 type nd-redirect oifname @inside drop",
        ),
    ),
)
