"""Routes through a tunnel device: a peer's block via the peer's own address, ``onlink`` on the device."""

from collections.abc import Iterator

from netagent.drivers.driver import Local, Peer
from netagent.model.address import Address, host_prefix
from netagent.plan.desired import Route


def routes_by_own_address(device: str, local: Local, peer: Peer) -> Iterator[Route]:
    """Yield one route per block and per fixed address of ``peer``, via the peer's own address of that family."""
    gateways: dict[int, Address] = {}
    for block in peer.blocks:
        if block.own_address is None:
            continue
        gateways.setdefault(block.prefix.version, block.own_address)
        if block.prefix.version == 6:
            # For IPv6 ``onlink`` is not enough: a next hop that another device's prefix covers is refused
            # (ip6_route_check_nh_onlink, net/ipv6/route.c). A route of its own puts it on this device.
            yield Route(destination=host_prefix(block.own_address), device=device, source=local.own_for(6))
        yield Route(
            destination=block.prefix,
            device=device,
            gateway=block.own_address,
            source=local.own_for(block.prefix.version),
            onlink=True,
        )
    for claim in peer.fixed:
        gateway = gateways.get(claim.address.version)
        if gateway is not None:
            yield Route(
                destination=host_prefix(claim.address),
                device=device,
                gateway=gateway,
                source=local.own_for(claim.address.version),
                onlink=True,
            )
