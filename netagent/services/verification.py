"""Verification: is an attachment in the kernel as it was made (CNI CHECK)? Nothing is changed.

The same comparison that the engine makes, for one endpoint and its network: what a plan would have to mend is what
differs. A later plugin of the chain may have changed an interface's MTU and MAC, which is no fault.
"""

from dataclasses import replace

from netagent.errors import NotFound
from netagent.model.address import Mac
from netagent.model.endpoint import Endpoint
from netagent.plan.desired import State, Veth
from netagent.plan.diff import diff
from netagent.plan.operation import FlushAddress, FlushPort
from netagent.plan.render import render_endpoint, render_network, with_tables
from netagent.plan.union import union
from netagent.services.context import Context


class VerificationService:
    """Compares attachments with the kernel."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def verify(self, endpoint: Endpoint, *, netns: str, mac: Mac | None = None) -> tuple[str, ...]:
        """Return what is missing or different, a line each.

        ``netns`` is where the namespace is to be, ``mac`` the one that the interface may have by now. NotFound if there
        is no namespace, or the endpoint's network is not there any more.
        """
        if await self._context.kernel.sandbox_inode(netns) != endpoint.sandbox_inode:
            return (f"{netns} is not the network namespace that was attached",)
        snapshot = self._context.snapshot()
        network = snapshot.networks.get(endpoint.network_id)
        if network is None:
            raise NotFound(f"network {endpoint.network_id[:12]} not found", hint="it was removed from under this host")
        parts = (render_network(snapshot, network), render_endpoint(snapshot, endpoint))
        desired = _with_peer_mac(with_tables(union(parts)), mac or endpoint.mac)
        observed = await self._context.kernel.observe(desired)
        plan = diff(desired, _with_mtus_of(desired, observed), prune=False)
        reasons = (reason for name, reason in observed.broken.items() if name in desired.links)
        missing = (str(o) for o in plan.operations if not isinstance(o, FlushPort | FlushAddress))
        differences = (*reasons, *missing)
        if differences:
            self._context.engine.request()
        return differences


def _with_peer_mac(state: State, mac: Mac) -> State:
    links = {
        name: replace(link, kind=replace(link.kind, peer_mac=mac)) if isinstance(link.kind, Veth) else link
        for name, link in state.links.items()
    }
    return replace(state, links=links)


def _with_mtus_of(desired: State, observed: State) -> State:
    links = {
        name: replace(link, mtu=desired.links[name].mtu)
        if isinstance(link.kind, Veth) and name in desired.links
        else link
        for name, link in observed.links.items()
    }
    return replace(observed, links=links)
