"""Without ICC (``firewall.apart``): frames between containers are dropped unless the hooks of IP have let them pass.

ebtables' FORWARD comes before br_netfilter and its POSTROUTING after it (linux/netfilter_bridge.h). So the first gives
such a frame a bit of its mark, the rules of ``isolate`` exchange it for another one, and the last drops what still has
it.
"""

import re
from collections.abc import Iterator

from netagent.firewall.apart import MARK
from netagent.firewall.iptables.pieces import PREFIX, Frame, Piece, frames, rules

_BRIDGE = ("bridge",)
_UNPROVEN = 0x400000
PROVEN = f"{MARK:#x}/{MARK | _UNPROVEN:#x}"
"""For ``--set-xmark``: the one bit instead of the other."""

FRAMES: tuple[Frame, ...] = (
    *frames("BRIDGED", table="filter", families=_BRIDGE, hooks=("FORWARD",)),
    *frames("BRIDGED-TO", table="filter", families=_BRIDGE),
    *frames(
        "UNPROVEN",
        table="nat",
        families=_BRIDGE,
        hooks=("POSTROUTING",),
        head=(f"--mark {_UNPROVEN:#x}/{_UNPROVEN:#x} -j DROP",),
    ),
)

_ELEMENT = re.compile(rf"-i (\S+) -j {PREFIX}BRIDGED-TO")


def separate(element: str) -> Iterator[Piece]:
    """Yield the rules for a port of a network without ICC."""
    yield from rules("BRIDGED", f"-i {element} -j {PREFIX}BRIDGED-TO", table="filter", families=_BRIDGE)
    mark = f"-j mark --mark-or {_UNPROVEN:#x} --mark-target CONTINUE"
    yield from rules("BRIDGED-TO", f"-o {element} {mark}", table="filter", families=_BRIDGE)


def element_of(rule: str) -> tuple[str, str] | None:
    """Return the set and the element that a rule is for, or None if it is for none."""
    found = _ELEMENT.fullmatch(rule)
    return ("bridge/separate", found[1]) if found else None
