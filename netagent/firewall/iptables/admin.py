"""The administrator's own chains (``firewall.admin``): made where they are missing, and never written to again."""

from netagent.firewall.iptables.pieces import BOTH, Frame, frames

FRAMES: tuple[Frame, ...] = tuple(
    frame
    for hook in ("INPUT", "FORWARD", "OUTPUT")
    for frame in frames(f"ADMIN-{hook}", table="filter", hooks=(hook,), families=BOTH)
)
"""Only their names and hooks count: what is in them is the administrator's."""
