"""Hosts: the machines with an agent, and what this one knows of its own interfaces."""

from dataclasses import dataclass

from netagent.model.address import Address, Prefix
from netagent.model.ids import HostId


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine with an agent. ``underlay`` are its addresses on the network between hosts, one per family."""

    id: HostId
    name: str
    underlay: tuple[Address, ...]
    mtu: int
    interface: str = ""

    def underlay_for(self, version: int) -> Address | None:
        """Return the underlay address of IP ``version`` 4 or 6, or None."""
        return next((a for a in self.underlay if a.version == version), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoute:
    """A route or an interface's prefix that the machine has and netagent did not make."""

    prefix: Prefix
    device: str
    protocol: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the machine's own network looks like: input for decisions, read once per request.

    ``interfaces`` maps a name to (MTU, addresses). ``default_device`` is the interface of the best default route.
    """

    interfaces: dict[str, tuple[int, tuple[Address, ...]]]
    routes: tuple[HostRoute, ...]
    default_device: str | None = None
