"""What is in the kernel of one endpoint."""

from netagent.model.endpoint import Endpoint
from netagent.plan.names import veth_name
from netagent.plan.render import render_endpoint
from netagent.services.context import Context


async def has_veth(context: Context, endpoint: Endpoint) -> bool:
    """Tell whether an endpoint's veth pair is there: it goes with the namespace that its other end is in."""
    snapshot = context.snapshot()
    if endpoint.network_id not in snapshot.networks:
        return False
    state = await context.kernel.observe_endpoint(render_endpoint(snapshot, endpoint))
    return veth_name(endpoint.id) in state.links
