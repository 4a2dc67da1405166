"""What is in the kernel of one endpoint."""

from netagent.model.endpoint import Endpoint
from netagent.plan.desired import State
from netagent.plan.names import veth_name
from netagent.plan.render import render_endpoint
from netagent.services.context import Context


async def has_veth(context: Context, endpoint: Endpoint) -> bool:
    """Tell whether an endpoint's veth pair is there: it goes with the namespace that its other end is in."""
    snapshot = context.snapshot()
    if endpoint.network_id not in snapshot.networks:
        return False
    # Its elements would be looked for among everybody's, and at the start every endpoint is asked about.
    links = State(links=render_endpoint(snapshot, endpoint).links)
    state = await context.kernel.observe_endpoint(links)
    return veth_name(endpoint.id) in state.links
