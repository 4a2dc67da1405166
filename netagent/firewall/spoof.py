"""Anti-spoofing: a container sends with its own MAC and addresses only, and claims no others by ARP or ND.

This stands in the table ``bridge netagent``: ``inet`` cannot match ARP, and what goes from one container to another
never leaves the bridge. The hook comes before that of br_netfilter, so it holds with and without it. A port is
recognised by the name of its host's end: one whose elements are not there yet, or no more, sends nothing.

Refused and counted as well: router advertisements and redirects (CVE-2020-10749), answers of DHCP servers, and every
frame that is neither IPv4, IPv6 nor ARP. On a network without IPv6 no endpoint has an IPv6 source, so none passes.

Port, MAC and address are one key, so a frame costs one look-up; TCP, which none of the other refusals concerns, is
looked up before everything else.
"""

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address

from netagent.model.address import Address, Mac
from netagent.model.endpoint import Endpoint
from netagent.plan.desired import Chain, ElementSet

PORT_PREFIX = "nae"
"""How the name of the host's end of every endpoint's veth pair begins."""

_OTHERS_MAC = "iifname . ether saddr != @macs goto refuse"
_OWN_SOURCE4 = "iifname . ether saddr . ip saddr @sources4"
_OWN_SOURCE6 = "iifname . ether saddr . ip6 saddr @sources6"

_LINK_LOCAL = int(IPv6Address("fe80::"))

SETS = (
    ElementSet(name="bridge/macs", key="ifname . ether_addr"),
    ElementSet(name="bridge/sources4", key="ifname . ether_addr . ipv4_addr"),
    ElementSet(name="bridge/sources6", key="ifname . ether_addr . ipv6_addr"),
    # The target of a neighbour solicitation or advertisement (RFC 4861, 4.3); nft 1.0.6 has no name for it.
    ElementSet(name="bridge/nd_targets", key="typeof iifname . @th,64,128"),
)

CHAINS = (
    Chain(name="bridge/refuse", rules=("counter drop",)),
    Chain(
        name="bridge/spoof_arp",
        rules=(
            _OTHERS_MAC,
            # A probe (RFC 5227, 1.1) asks and claims nothing.
            "iifname . arp saddr ether @macs arp saddr ip 0.0.0.0 arp operation request accept",
            "iifname . arp saddr ether . arp saddr ip @sources4 accept",
            "goto refuse",
        ),
    ),
    Chain(
        name="bridge/spoof4",
        rules=(
            "icmp type redirect goto refuse",
            "udp sport 67 goto refuse",
            f"{_OWN_SOURCE4} accept",
            "goto refuse",
        ),
    ),
    Chain(
        name="bridge/spoof6",
        rules=(
            _OTHERS_MAC,
            "icmpv6 type { nd-router-advert, nd-redirect } goto refuse",
            "udp sport 547 goto refuse",
            "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @nd_targets goto refuse",
            f"{_OWN_SOURCE6} accept",
            # Before it has an address: duplicate address detection (RFC 4862, 5.4.2) and MLD (RFC 3590).
            "ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @nd_targets accept",
            "ip6 saddr :: icmpv6 type { mld-listener-report, mld2-listener-report } accept",
            "goto refuse",
        ),
    ),
    Chain(
        name="bridge/spoof",
        # -300 is NF_BR_PRI_NAT_DST_BRIDGED; br_netfilter is at 0 (linux/netfilter_bridge.h).
        hook="type filter hook prerouting priority -300; policy accept;",
        rules=(
            f"meta protocol ip meta l4proto tcp {_OWN_SOURCE4} accept",
            f"meta protocol ip6 meta l4proto tcp {_OWN_SOURCE6} accept",
            f'iifname != "{PORT_PREFIX}*" accept',
            "meta protocol vmap { arp : goto spoof_arp, ip : goto spoof4, ip6 : goto spoof6 }",
            "goto refuse",
        ),
    ),
)


def link_local(mac: Mac) -> Address:
    """Return the link-local address that an interface with ``mac`` gives itself (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 0x02]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return ip_address(_LINK_LOCAL | int.from_bytes(identifier))


def elements(port: str, endpoint: Endpoint) -> dict[str, frozenset[str]]:
    """Return the elements of one endpoint whose veth pair's end on the host is ``port``."""
    sources: dict[int, set[Address]] = {4: set(), 6: set()}
    for given in endpoint.addresses:
        sources[given.address.version].add(given.address)
    for address in endpoint.link_local:
        sources[address.version].add(address)
    if sources[6]:
        sources[6].add(link_local(endpoint.mac))
    own = f"{port} . {endpoint.mac}"
    return {
        "bridge/macs": frozenset({own}),
        "bridge/sources4": frozenset(f"{own} . {address}" for address in sources[4]),
        "bridge/sources6": frozenset(f"{own} . {address}" for address in sources[6]),
        "bridge/nd_targets": frozenset(f"{port} . {int(address):#x}" for address in sources[6]),
    }


def source_addresses(elements: Mapping[str, frozenset[str]]) -> frozenset[Address]:
    """Return the addresses that the source sets among ``elements`` name, whichever endpoints they belong to."""
    named = (elements.get(f"bridge/sources{version}", frozenset()) for version in (4, 6))
    return frozenset(ip_address(element.rpartition(" . ")[2]) for group in named for element in group)
