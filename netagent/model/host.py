"""Hosts: the machines with an agent, and what this one knows of its own interfaces."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from netagent.model.address import Address, Prefix
from netagent.model.ids import HostId


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine with an agent. ``underlay`` are its addresses on the network between hosts, one per family.

    ``on_link`` are the prefixes that its underlay interface reaches without a router, ``features`` what its kernel has
    that others' may lack. ``routes`` are the prefixes that the machine itself routes or has addresses in, so that no
    network gets them; the widest if there are many.
    """

    id: HostId
    name: str
    underlay: tuple[Address, ...]
    mtu: int
    interface: str = ""
    on_link: tuple[Prefix, ...] = ()
    features: frozenset[str] = frozenset()
    routes: tuple[Prefix, ...] = ()

    def underlay_for(self, version: int) -> Address | None:
        """Return the underlay address of IP ``version`` 4 or 6, or None."""
        return next((a for a in self.underlay if a.version == version), None)

    def shares_segment_with(self, other: "Host", version: int) -> bool:
        """Tell whether each of two hosts reaches the other's underlay address of IP ``version`` without a router.

        Both are asked, so that both come to the same answer.
        """
        own, far = self.underlay_for(version), other.underlay_for(version)
        if own is None or far is None:
            return False
        return any(far in p for p in self.on_link if p.version == version) and any(
            own in p for p in other.on_link if p.version == version
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """One life of a host's agent: which ``boot`` of its machine, which process, reachable under which addresses.

    Equal ``boot`` and ``underlay`` tell a host that comes back from another machine with its UUID.
    """

    boot: str
    life: str
    underlay: tuple[Address, ...]

    def succeeds(self, other: "Incarnation") -> bool:
        """Tell whether this is a later life of the same machine, so that the ``other`` must be over."""
        return self.boot == other.boot and self.underlay == other.underlay


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedHost:
    """A host that an operator removed at ``time``, with the claims it had: it may not know yet."""

    id: HostId
    name: str
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoute:
    """A route or an interface's prefix that netagent did not make; ``on_link`` if it has no gateway."""

    prefix: Prefix
    device: str
    protocol: int = 0
    on_link: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the machine's own network looks like: input for decisions, read once per request.

    ``interfaces`` maps a name to (MTU, addresses), ``bridges`` the names of bridges to their addresses with prefix
    length. ``default_device`` is the interface of the best default route. ``outside`` are the
    interfaces that lead out of the machine, as opposed to other programs' containers and guests.
    """

    interfaces: dict[str, tuple[int, tuple[Address, ...]]]
    routes: tuple[HostRoute, ...]
    default_device: str | None = None
    features: frozenset[str] = frozenset()
    bridges: Mapping[str, tuple[tuple[Address, int], ...]] = field(default_factory=lambda: MappingProxyType({}))
    outside: tuple[str, ...] = ()
