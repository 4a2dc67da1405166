"""Hosts: who is in the cluster, who is live, who holds what."""

from netagent.services.context import Context
from netagent.services.names import natural_key
from netagent.services.requests import HostView


class HostService:
    """The hosts that this one knows, itself included."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def list(self) -> list[HostView]:
        """Return all hosts, sorted by name."""
        snapshot = self._context.snapshot()
        own = snapshot.host
        hosts = {**snapshot.hosts, own.id: own}
        views = [
            HostView(
                host=host,
                live=host.id in snapshot.live,
                is_self=host.id == own.id,
                blocks=tuple(
                    (snapshot.networks[block.network_id], block)
                    for block in snapshot.blocks
                    if block.owner == host.id and block.network_id in snapshot.networks
                ),
            )
            for host in hosts.values()
        ]
        return sorted(views, key=lambda view: natural_key(view.host.name))
