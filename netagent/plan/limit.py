"""An endpoint's limits as kernel state: a token bucket before its container, and another behind it.

What goes to the container leaves the host through the host's end of the veth pair, and is shaped there. What comes
from it arrives at that end, where nothing can be queued, so it is led through an ifb device and shaped as it leaves
that. Both are in the host's namespace, where no container reaches them, whatever privileges it has in its own.
"""

from types import MappingProxyType

from netagent.model.endpoint import Endpoint
from netagent.model.ids import EndpointId, short
from netagent.model.rate import LARGEST_BURST_BYTES, Rate
from netagent.plan.desired import ALIAS_PREFIX, Ifb, Link, Redirect, Shaper, State

_FRAME_OVERHEAD_BYTES = 22
"""Ethernet header and two VLAN tags: a bucket smaller than a frame passes none (tbf_enqueue, net/sched/sch_tbf.c)."""

_LEAST_BURST_BYTES = 16 * 1024
_BURST_S = 0.01
_LONGEST_BURST_S = 200
"""The kernel counts a bucket in 32 bits of 64 ns (TCA_TBF_PARMS): 274 s."""

_QUEUE_S = 0.05
_LEAST_QUEUE_BYTES = 64 * 1024
"""One segment as large as a sender hands it over (GSO); its parts would not fit otherwise."""


def ifb_name(endpoint_id: EndpointId) -> str:
    """Return the name of the device that an endpoint's outgoing packets are led through."""
    return f"nai{short(endpoint_id)}"


def render_limits(endpoint: Endpoint, port: str, mtu: int) -> State:
    """Return what holds an endpoint, whose host end is ``port``, to its rates."""
    shapers: set[Shaper] = set()
    if endpoint.rate_in is not None:
        shapers.add(_shaper(port, endpoint.rate_in, mtu))
    if endpoint.rate_out is None:
        return State(shapers=frozenset(shapers))
    through = ifb_name(endpoint.id)
    shapers.add(_shaper(through, endpoint.rate_out, mtu))
    link = Link(name=through, kind=Ifb(), mtu=mtu, alias=f"{ALIAS_PREFIX}{endpoint.id}")
    return State(
        links=MappingProxyType({through: link}),
        shapers=frozenset(shapers),
        redirects=frozenset({Redirect(device=port, through=through)}),
    )


def _shaper(device: str, rate: Rate, mtu: int) -> Shaper:
    octets = rate.bits // 8
    asked = rate.burst if rate.burst is not None else max(int(octets * _BURST_S), _LEAST_BURST_BYTES)
    burst = max(min(asked, octets * _LONGEST_BURST_S, LARGEST_BURST_BYTES), mtu + _FRAME_OVERHEAD_BYTES)
    queue = min(max(int(octets * _QUEUE_S), _LEAST_QUEUE_BYTES), LARGEST_BURST_BYTES)
    return Shaper(device=device, rate=octets, burst=burst, queue=burst + queue)
