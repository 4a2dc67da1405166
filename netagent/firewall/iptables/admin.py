"""The administrator's own chains (``firewall.admin``): made where they are missing, and never written to again.

In the table ``filter``, where REJECT is allowed too. A drop there is final; an ACCEPT opens nothing of ours, which was
refused before.
"""

from netagent.firewall.iptables.pieces import BOTH, Frame, frames

FRAMES: tuple[Frame, ...] = tuple(
    frame
    for hook in ("INPUT", "FORWARD", "OUTPUT")
    for frame in frames(f"ADMIN-{hook}", table="filter", hooks=(hook,), families=BOTH)
)
"""Only their names and hooks count: what is in them is the administrator's."""
