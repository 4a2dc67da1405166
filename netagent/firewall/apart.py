"""Without ICC (``icc=false``) a bridge passes no frame from one container to another, but for published ports.

A request to a neighbour's published port goes to the host's address. It is routed, or, where bridged frames pass the
hooks of IP (br_netfilter), translated there and bridged to its new destination (br_nf_pre_routing_finish,
net/bridge/br_netfilter_hooks.c). So those hooks mark what they translated, ``isolate`` does, and here is dropped
whatever has no mark. It comes after br_netfilter's own hook, which is at 0 (linux/netfilter_bridge.h). The kernel's
isolated ports know no such exception.

A container cannot mark its packets itself: what crosses namespaces loses its mark (skb_scrub_packet).
"""

from netagent.plan.desired import Chain, ElementSet

MARK = 0x800000
"""The bit of a packet's mark that says: translated, and on its way between two containers of one network."""

PUT_MARK = f"meta mark set meta mark or {MARK:#x}"
HAS_MARK = f"meta mark and {MARK:#x} == {MARK:#x}"

SETS = (ElementSet(name="bridge/separate", key="ifname"),)

CHAINS = (
    Chain(
        name="bridge/apart",
        hook="type filter hook forward priority 100; policy accept;",
        rules=(f"iifname @separate oifname @separate meta mark and {MARK:#x} == 0 drop",),
    ),
)


def elements(port: str, *, icc: bool) -> dict[str, frozenset[str]]:
    """Return the elements of an endpoint whose veth pair's end on the host is ``port``."""
    return {"bridge/separate": frozenset(() if icc else {port})}
