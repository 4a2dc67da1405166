"""Blocks and fixed addresses: claimed in the store by transactions that exclude each other.

A block is claimed only if nobody has it and no fixed address lies inside; a fixed address only if nobody has it and
no host holds its block; both only while the network is what this host believes it to be. A claim stays until its
owner gives it back.
"""

import logging
import secrets
from collections.abc import Collection
from dataclasses import replace

from netagent.drivers import driver_named
from netagent.errors import Conflict, EnvironmentProblem, Exhausted, Unavailable
from netagent.ipam.allocate import block_around, choose_address, choose_block
from netagent.ipam.pools import refuse_overlap
from netagent.model.address import Address, is_inside
from netagent.model.block import FixedAddress
from netagent.model.ids import EndpointId
from netagent.model.network import Network, NetworkState, Scope, Subnet
from netagent.model.snapshot import Snapshot
from netagent.plan.peers import peers_of
from netagent.reconcile.ports import Absent, Put
from netagent.services.block_claims import claim_block
from netagent.services.context import Context
from netagent.services.existing_bridge import without_bridge
from netagent.services.locks import Locks
from netagent.store import keys
from netagent.store.host_records import decode_epoch
from netagent.store.records import encode_fixed

log = logging.getLogger("netagent.blocks")

ATTEMPTS = 50
"""How often a claim is tried anew after another host was quicker; each try has seen the other's claim."""


class BlockService:
    """Claims for this host."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._locks = Locks()

    async def ensure(self, network: Network, given: Collection[Address] = ()) -> None:
        """Make sure this host holds a block with a free address of every subnet; a host that does asks nobody.

        Of the families of ``given``, fixed addresses, any block will do: the way to them leads by it.
        """
        self._refuse_drained(network)
        fixed = {address.version for address in given}
        if all(self._has_room(network, subnet, fixed) for subnet in network.subnets):
            return
        # Of many that come at once, one claims; the others find its block.
        async with self._locks.held(network.id):
            for subnet in network.subnets:
                if not self._has_room(network, subnet, fixed):
                    await self._claim(network, subnet)

    async def regain(self, network: Network) -> bool:
        """Claim a block of each subnet whose addresses lead here by none of this host's; tell whether any was claimed.

        So it is with a fixed address after the block was taken: the address itself is still this host's.
        """
        missing = self._unreached(network)
        if missing:
            async with self._locks.held(network.id):
                for subnet in self._unreached(network):
                    await self._claim(network, subnet)
        return bool(missing)

    def _unreached(self, network: Network) -> list[Subnet]:
        """Return the subnets of families in which endpoints here are served and no block is this host's."""
        snapshot = self._context.snapshot()
        missing = {s.prefix.version for s in network.subnets}
        missing -= {b.prefix.version for b in snapshot.own_blocks_in(network.id)}
        if not missing:
            return []
        cut_off = snapshot.cut_off
        served = [e for e in snapshot.endpoints_in(network.id) if e.in_kernel and e.id not in cut_off]
        given = [a.address for endpoint in served for a in endpoint.addresses if a.address.version in missing]
        by_family = {s.prefix.version: s for address in given if (s := network.subnet_of(address)) is not None}
        return list(by_family.values())

    def _refuse_drained(self, network: Network) -> None:
        """Raise Conflict if an operator wants this host to get no further containers in networks across hosts."""
        host = self._context.host
        is_drained = self._context.stores.cluster.entry(keys.drain_key(host.id)) is not None
        if is_drained and network.scope is Scope.GLOBAL:
            raise Conflict(
                f"host {host.name} is being drained",
                hint=f"run the container on another host, or netagent host drain --stop {host.name}",
            )

    def _has_room(self, network: Network, subnet: Subnet, fixed: Collection[int]) -> bool:
        snapshot = self._context.snapshot()
        held = [b for b in snapshot.own_blocks_in(network.id) if is_inside(b.prefix, subnet.prefix)]
        if held and (subnet.reserved_block is None or subnet.prefix.version in fixed):
            return True
        try:
            choose_address(network, held, snapshot.used_addresses(network.id), None)
        except Exhausted:
            return False
        return True

    async def _claim(self, network: Network, subnet: Subnet) -> None:
        refuse_unreachable_peers(self._context.snapshot(), network)
        await self._refuse_overlap_here(network)
        access = self._context.stores.of(network)
        for attempt in range(ATTEMPTS):
            self._refuse_deleting(network)
            snapshot = self._context.snapshot()
            prefix = choose_block(
                subnet,
                [block.prefix for block in snapshot.blocks_in(network.id)],
                [claim.address for claim in snapshot.fixed if claim.network_id == network.id],
                # Whoever lost the race for the first free block leaves it to chance which one to try next.
                skip=secrets.randbelow(4 * attempt + 1),
            )
            if await claim_block(access, network, subnet, prefix, snapshot.host.id):
                log.info("host %s holds block %s of network %s", snapshot.host.name, prefix, network.name)
                self._context.events.publish(
                    "network", "claim", network.id, name=network.name, block=str(prefix), host=snapshot.host.name
                )
                return
        raise Unavailable(f"no block of network {network.name} could be claimed", hint="try again in a moment")

    async def _refuse_overlap_here(self, network: Network) -> None:
        """Raise Conflict if this host uses the network's subnets otherwise; nobody asked it when it was created."""
        snapshot = self._context.snapshot()
        if snapshot.own_blocks_in(network.id):
            return
        # A network across hosts gives way to this host's own; those were checked against each other when created.
        gives_way = network.scope is Scope.GLOBAL
        others = (
            other
            for other in snapshot.networks.values()
            if other.id != network.id
            and (snapshot.own_blocks_in(other.id) or (gives_way and other.scope is Scope.LOCAL))
        )
        facts = await self._context.kernel.facts()
        if network.bridge is not None:
            if network.bridge not in facts.bridges:
                raise Conflict(
                    f"bridge {network.bridge} of network {network.name} does not exist any more",
                    hint="make it again, or remove the network",
                )
            facts = without_bridge(facts, network.bridge)
        if network.overlaps:
            facts = replace(facts, routes=(), interfaces={})
        refuse_overlap(network.subnets, others, facts)

    async def claim_address(self, network: Network, address: Address, endpoint_id: EndpointId) -> None:
        """Claim a fixed address outside all blocks for an endpoint of this host; Conflict if another was quicker."""
        self._refuse_deleting(network)
        subnet = network.subnet_of(address)
        assert subnet is not None
        block = block_around(subnet, address)
        access = self._context.stores.of(network)
        claim = FixedAddress(
            network_id=network.id,
            address=address,
            owner=self._context.host.id,
            epoch=decode_epoch(access.entry(keys.EPOCH)) + 1,
            endpoint_id=endpoint_id,
        )
        key = keys.address_key(network.id, block, address)
        guards = (
            # A claim left over from a container of ours that is gone, and not given back yet, changes hands.
            access.unchanged(key) if self._is_left_over(network, address) else Absent(key=key),
            Absent(key=keys.block_key(network.id, block)),
            access.unchanged(keys.network_key(network.name)),
        )
        if not await access.commit(guards, (Put(key=key, value=encode_fixed(claim)),)):
            self._refuse_deleting(network)
            if claim in self._context.snapshot().fixed:
                return  # The publisher has missed it already.
            raise Conflict(
                f"Address already in use: {address} in network {network.name}",
                hint="another host has just claimed it, or the block around it; choose another --ip",
                address=address,
            )

    def _is_left_over(self, network: Network, address: Address) -> bool:
        snapshot = self._context.snapshot()
        claims = (c for c in snapshot.fixed if (c.network_id, c.address) == (network.id, address))
        return any(c.owner == snapshot.host.id and c.endpoint_id not in snapshot.endpoints for c in claims)

    def _refuse_deleting(self, network: Network) -> None:
        """Raise Conflict if the network as it is now, not as it was when the request came, is being deleted."""
        latest = self._context.snapshot().networks.get(network.id)
        if latest is not None and latest.state is NetworkState.DELETING:
            raise Conflict(f"network {network.name} is being deleted", hint="wait until it is gone")


def refuse_unreachable_peers(snapshot: Snapshot, network: Network) -> None:
    """Raise EnvironmentProblem if the driver has no way between this host and one that holds a block."""
    host = snapshot.host
    if network.scope is Scope.LOCAL:
        return
    if host.underlay_for(network.underlay) is None:
        raise EnvironmentProblem(
            f"network {network.name} needs an address of this host that other hosts can reach by IPv{network.underlay}",
            hint="give the agent one with --host-ip",
        )
    driver = driver_named(network.driver)
    for peer in peers_of(snapshot, network):
        reason = driver.obstacle(network, host, peer.host)
        if reason is not None:
            raise EnvironmentProblem(
                f"network {network.name}: hosts {host.name} and {peer.host.name} {reason}",
                hint="use the driver vxlan, or for the driver route --opt fallback=vxlan",
            )
