"""Links (``--link``) without ICC: a container reaches the ports that a linked neighbour serves, and nobody else does.

One element a run of ports: the linking container's address, the neighbour's, protocol and ports. Answers are let back
as those of any connection. Both families are routed by the host: for IPv4 its bridge answers for the neighbours'
addresses (``proxy_arp_pvlan``), for IPv6 the containers' routes lead there.
"""

from collections.abc import Iterable

from netagent.model.endpoint import Endpoint
from netagent.model.served import ServedPort, port_runs
from netagent.plan.desired import ElementSet

SETS = (
    ElementSet(name="linked4", key="ipv4_addr . ipv4_addr . inet_proto . inet_service", flags=("interval",)),
    ElementSet(name="linked6", key="ipv6_addr . ipv6_addr . inet_proto . inet_service", flags=("interval",)),
)

RETURNS = (
    "ip saddr . ip daddr . meta l4proto . th dport @linked4 return",
    "ip6 saddr . ip6 daddr . meta l4proto . th dport @linked6 return",
)


def elements(linking: Endpoint, target: Endpoint, ports: Iterable[ServedPort]) -> dict[str, frozenset[str]]:
    """Return the elements by which ``linking`` reaches these ports of ``target``, in each family that both have."""
    runs = [(str(first) if first == last else f"{first}-{last}", proto) for first, last, proto in port_runs(ports)]
    return {
        f"linked{source.address.version}": frozenset(
            f"{source.address} . {given.address} . {protocol} . {span}" for span, protocol in runs
        )
        for source in linking.addresses
        for given in target.addresses
        if source.address.version == given.address.version
    }
