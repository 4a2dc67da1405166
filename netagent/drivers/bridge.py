"""The driver ``bridge``: a network that lives on one host, behind one bridge. There are no peers."""

from collections.abc import Sequence

from netagent.drivers.driver import Local, Peer
from netagent.model.host import Host
from netagent.model.network import Network, Scope
from netagent.plan.desired import State


class BridgeDriver:
    """Containers of this host only; everything else leaves through the host, masqueraded."""

    name = "bridge"
    scope = Scope.LOCAL
    needs_number = False

    def overhead(self, network: Network) -> int:
        return 0

    def device(self, network: Network, local: Host) -> str | None:
        return None

    def ways(self, network: Network, local: Host) -> tuple[str, ...]:
        return ()

    def obstacle(self, network: Network, local: Host, peer: Host) -> str | None:
        return None

    def render(self, network: Network, local: Local, peers: Sequence[Peer]) -> State:
        return State()
