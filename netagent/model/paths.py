"""What tests of the ways to other hosts found, as far as this host does something about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from netagent.model.ids import HostId, NetworkId


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """``narrow``: network, host and IP version -> bytes of the largest packet that arrives, where the MTU is more.

    ``corrupting`` are the networks whose tunnel packets leave this host with wrong checksums, unless the kernel works
    them out itself.
    """

    narrow: Mapping[tuple[NetworkId, HostId, int], int] = field(default_factory=lambda: MappingProxyType({}))
    corrupting: frozenset[NetworkId] = frozenset()
