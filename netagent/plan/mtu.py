"""MTU arithmetic: what remains for the containers once a tunnel has taken its share."""

from netagent.errors import InvalidRequest

VXLAN_OVERHEAD = {4: 50, 6: 70}
"""Bytes by underlay IP version: outer IP 20 or 40, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348, section 5)."""

GRE_OVERHEAD = {4: 42, 6: 62}
"""Bytes by underlay IP version: outer IP 20 or 40, GRE 4 with key 4, inner Ethernet 14 (RFC 2784, RFC 2890)."""

MINIMUM_MTU = {4: 68, 6: 1280}
"""Smallest MTU the kernel takes for a family: RFC 791 and RFC 8200, section 5."""

MAXIMUM_MTU = 65535


def overlay_mtu(underlay_mtu: int, overhead: int) -> int:
    """Return the MTU for containers of a network whose packets lose ``overhead`` bytes on ``underlay_mtu``."""
    return underlay_mtu - overhead


def parse_mtu(text: str, *, ipv6: bool = False) -> int:
    """Return the MTU that a user asked for, or refuse it in Docker's words."""
    minimum = MINIMUM_MTU[6 if ipv6 else 4]
    if not (text.isascii() and text.isdigit()) or not minimum <= int(text) <= MAXIMUM_MTU:
        raise InvalidRequest(f"invalid MTU number: {text}", hint=f"{minimum} to {MAXIMUM_MTU}")
    return int(text)
