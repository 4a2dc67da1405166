"""Sources on plain routes (``firewall.routed``): an ipset of prefixes, and one of prefixes with interfaces.

An ipset of the second kind takes a prefix with at most 64 interfaces; here they are a network's own, one or two.
"""

from collections.abc import Iterator

from netagent.firewall.iptables.pieces import (
    IPSET_FAMILIES,
    PREFIX,
    Frame,
    Ipset,
    Member,
    Piece,
    frames,
    parts,
    rules,
)

NAMES = {family: f"{PREFIX}routed{version}" for family, version in (("ip", 4), ("ip6", 6))}
REMOTE_NAMES = {family: f"{PREFIX}remote{version}" for family, version in (("ip", 4), ("ip6", 6))}


def _routed(version: int) -> Ipset:
    return Ipset(name=f"{PREFIX}routed{version}", kind=f"hash:net family {IPSET_FAMILIES[version]}")


def _remote(version: int) -> Ipset:
    return Ipset(name=f"{PREFIX}remote{version}", kind=f"hash:net,iface family {IPSET_FAMILIES[version]}")


IPSETS = tuple(make(version) for version in IPSET_FAMILIES for make in (_routed, _remote))

FRAMES: tuple[Frame, ...] = tuple(
    frame
    for family, name in NAMES.items()
    for frame in (
        *frames(
            "STRANGERS",
            table="raw",
            hooks=("PREROUTING",),
            families=(family,),
            head=(f"-m set --match-set {name} src -j {PREFIX}WAYS",),
        ),
        *frames("WAYS", table="raw", families=(family,), tail=("-j DROP",)),
        *frames("WAYS-IN", table="mangle", families=(family,), tail=(f"-g {PREFIX}BEYOND",)),
        *frames("WAYS-OUT", table="mangle", families=(family,), tail=(f"-g {PREFIX}BEYOND",)),
    )
)


def ways(element: str) -> Iterator[Piece]:
    """Yield what lets packets of peers' containers in by an interface, and packets for them out."""
    yield from rules("WAYS", f"-i {element} -j RETURN", table="raw")
    yield from rules("WAYS-IN", f"-i {element} -j RETURN", table="mangle")
    yield from rules("WAYS-OUT", f"-o {element} -j RETURN", table="mangle")


def routed4(element: str) -> Iterator[Piece]:
    """Yield the member for an IPv4 prefix."""
    yield Member(ipset=_routed(4), text=element)


def routed6(element: str) -> Iterator[Piece]:
    """Yield the member for an IPv6 prefix."""
    yield Member(ipset=_routed(6), text=element)


def remote4(element: str) -> Iterator[Piece]:
    """Yield the member for an IPv4 prefix and an interface."""
    yield Member(ipset=_remote(4), text=",".join(parts(element)))


def remote6(element: str) -> Iterator[Piece]:
    """Yield the member for an IPv6 prefix and an interface."""
    yield Member(ipset=_remote(6), text=",".join(parts(element)))
