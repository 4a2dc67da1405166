"""Names for containers whose resolver is not ours to set: their queries on the way out are answered by this host.

Docker's containers ask 127.0.0.11, where dockerd listens in their namespace; what it does not know it asks of its own
nameservers from there, so the query leaves the container with the container's address. It is translated to the
network's gateway, where netagent answers. Queries to nameservers in netagent's own networks go where they are meant to.
"""

from netagent.model.endpoint import Endpoint
from netagent.model.network import Network
from netagent.plan.desired import Chain, ElementSet

SETS = (
    ElementSet(name="resolve4", key="ipv4_addr", data="ipv4_addr"),
    ElementSet(name="resolve6", key="ipv6_addr", data="ipv6_addr"),
)

CHAINS = (
    Chain(
        name="resolve",
        # Just before dstnat, -100, which has nothing to do with what is translated here.
        hook="type nat hook prerouting priority -101; policy accept;",
        rules=(
            "ip daddr @masquerade4 return",
            "ip6 daddr @masquerade6 return",
            "iifname @inside meta l4proto { tcp, udp } th dport 53 dnat ip to ip saddr map @resolve4",
            "iifname @inside meta l4proto { tcp, udp } th dport 53 dnat ip6 to ip6 saddr map @resolve6",
        ),
    ),
)


def elements(endpoint: Endpoint, network: Network) -> dict[str, frozenset[str]]:
    """Return the elements of an endpoint that is Docker's: where its addresses ask for names."""
    found: dict[str, frozenset[str]] = {}
    for given in endpoint.addresses:
        subnet = network.subnet_of(given.address)
        if subnet is not None and endpoint.is_given_away:
            found[f"resolve{given.address.version}"] = frozenset({f"{given.address} : {subnet.gateway}"})
    return found
