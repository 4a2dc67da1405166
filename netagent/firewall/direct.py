"""Ways to containers by their own addresses, past any translation, where a network asks for them (``gateway_mode``).

``served`` has the published ports of networks that are routed, where no host port leads to them, each with who may use
it; ``open`` the subnets whose containers are reached whatever the port, by anybody but containers of other networks;
``trusted`` the pairs of an interface of the host and a bridge between which all passes. That packets for these
addresses come to this host is the affair of the network around it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from netagent.firewall.masquerade import prefix_text
from netagent.model.address import Address, parse_prefix
from netagent.model.endpoint import Endpoint
from netagent.model.network import Network
from netagent.plan.desired import ElementSet

EVERYWHERE = {4: parse_prefix("0.0.0.0/0"), 6: parse_prefix("::/0")}

SETS = (
    ElementSet(name="trusted", key="ifname . ifname"),
    ElementSet(name="open4", key="ipv4_addr", flags=("interval",)),
    ElementSet(name="open6", key="ipv6_addr", flags=("interval",)),
    ElementSet(name="served4", key="ipv4_addr . ipv4_addr . inet_proto . inet_service", flags=("interval",)),
    ElementSet(name="served6", key="ipv6_addr . ipv6_addr . inet_proto . inet_service", flags=("interval",)),
)

ACCEPTS = (
    "iifname . oifname @trusted accept",
    "iifname != @inside oifname @inside ip daddr @open4 accept",
    "iifname != @inside oifname @inside ip6 daddr @open6 accept",
    "oifname @inside ip saddr . ip daddr . meta l4proto . th dport @served4 accept",
    "oifname @inside ip6 saddr . ip6 daddr . meta l4proto . th dport @served6 accept",
)
"""For the hook that forwards, before what else would enter a network is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectWay:
    """A way to a container's ``address``, and the set and element that ``opened`` it.

    By ``interface`` alone if it is not empty; ``sources`` are who alone has it, anybody if empty.
    """

    address: Address
    opened: str
    protocol: str = "any"
    ports: str = "any"
    interface: str = ""
    sources: tuple[str, ...] = ()


def ways(endpoint: Endpoint, network: Network, bridge: str) -> Iterator[DirectWay]:
    """Yield the ways that the elements of a network and of one of its endpoints open."""
    for given in endpoint.addresses:
        version = given.address.version
        for interface in network.trusted:
            opened = f"trusted {{ {interface} . {bridge} }}"
            yield DirectWay(address=given.address, interface=interface, opened=opened)
        if version in network.unprotected and (subnet := network.subnet_of(given.address)) is not None:
            yield DirectWay(address=given.address, opened=f"open{version} {{ {subnet.prefix} }}")
        for element in _served(endpoint, version) if version in network.routed else ():
            source, _, protocol, ports = element.split(" . ")
            sources = () if source.endswith("/0") else (source,)
            opened = f"served{version} {{ {element} }}"
            yield DirectWay(address=given.address, protocol=protocol, ports=ports, sources=sources, opened=opened)


def network_elements(network: Network, bridge: str) -> dict[str, frozenset[str]]:
    """Return the elements of a network with this bridge."""
    return {
        "trusted": frozenset(f"{interface} . {bridge}" for interface in network.trusted),
        **{
            f"open{version}": frozenset(str(s.prefix) for s in network.subnets if s.prefix.version == version)
            for version in network.unprotected
        },
    }


def endpoint_elements(endpoint: Endpoint, network: Network) -> dict[str, frozenset[str]]:
    """Return the elements of an endpoint: its published ports, in the families in which the network is routed."""
    return {f"served{version}": frozenset(_served(endpoint, version)) for version in network.routed}


def _served(endpoint: Endpoint, version: int) -> Iterator[str]:
    address = endpoint.address_of(version)
    for mapping in endpoint.ports if address is not None else ():
        first, last = mapping.container_ports[0], mapping.container_ports[-1]
        service = f"{address} . {mapping.protocol} . {first if first == last else f'{first}-{last}'}"
        for source in mapping.sources or (EVERYWHERE[version],):
            if source.version == version:
                yield f"{prefix_text(source)} . {service}"
