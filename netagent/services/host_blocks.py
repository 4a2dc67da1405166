"""Blocks that an operator gives to hosts in advance, or wants back.

A reservation is a claim like any other, made for a host by somebody else: its first container of the network needs no
store. Only its owner gives a block back, when no endpoint has an address in it; until then it is ``draining``: routed
to, and no new address comes from it.
"""

import builtins
from dataclasses import replace

from netagent.errors import Conflict, InvalidRequest, NotFound, Unavailable
from netagent.ipam.allocate import choose_block
from netagent.model.address import Prefix, parse_prefix
from netagent.model.block import Block, BlockState
from netagent.model.host import Host
from netagent.model.network import Network, NetworkState, Scope, Subnet
from netagent.reconcile.ports import Absent, Delete, Put, Unchanged
from netagent.services.block_claims import claim_block
from netagent.services.context import Context
from netagent.services.hosts import HostService
from netagent.services.networks import NetworkService
from netagent.store import keys
from netagent.store.records import encode_block

ATTEMPTS = 50


class HostBlockService:
    """Reserves, releases and drains."""

    def __init__(self, context: Context, hosts: HostService, networks: NetworkService) -> None:
        self._context = context
        self._hosts = hosts
        self._networks = networks

    async def reserve(self, host_name: str, network_name: str, block: str = "") -> builtins.list[Block]:
        """Claim ``block`` of a network for a host, or one of each subnet if none is named; return what it holds now.

        One that it holds already is its own again if it was draining.
        """
        host, network = self._hosts.find(host_name).host, self._find(network_name)
        if block:
            prefix = parse_prefix(block, what="block")
            return [await self._claim(host, network, _subnet_for(network, prefix), prefix)]
        return [await self._claim(host, network, subnet, None) for subnet in network.subnets]

    async def release(self, host_name: str, network_name: str, block: str = "") -> builtins.list[Block]:
        """Have a host give back ``block`` of a network, or all that it holds there, as soon as they are empty."""
        host, network = self._hosts.find(host_name).host, self._find(network_name)
        prefix = parse_prefix(block, what="block") if block else None
        held = [b for b in self._context.snapshot().blocks_in(network.id) if b.owner == host.id]
        wanted = [b for b in held if prefix in (None, b.prefix)]
        if not wanted:
            raise NotFound(
                f"host {host.name} holds no block {block}".rstrip() + f" of network {network.name}",
                hint=f"netagent host inspect {host.name}",
            )
        return [await self._set_state(b, BlockState.DRAINING) for b in wanted]

    async def drain(self, host_name: str, *, stop: bool = False) -> Host:
        """Let a host get no further containers in networks across hosts, and give its blocks back as they empty."""
        host = self._hosts.find(host_name).host
        access = self._context.stores.cluster
        key = keys.drain_key(host.id)
        if not stop:
            await access.commit((Absent(key=key),), (Put(key=key, value=b"{}"),))
            return host
        await access.commit((), (Delete(key=key),))
        for block in [b for b in self._context.snapshot().blocks if b.owner == host.id]:
            if block.state is BlockState.DRAINING:
                await self._set_state(block, BlockState.CONFIRMED)
        return host

    def _find(self, name: str) -> Network:
        network = self._networks.find(name)
        if network.scope is Scope.LOCAL or not network.has_endpoints:
            raise InvalidRequest(f"network {network.name} lives on one host", hint="there is nothing to reserve")
        if network.state is NetworkState.DELETING:
            raise Conflict(f"network {network.name} is being deleted", hint="wait until it is gone")
        return network

    async def _claim(self, host: Host, network: Network, subnet: Subnet, prefix: Prefix | None) -> Block:
        access = self._context.stores.of(network)
        for _ in range(ATTEMPTS):
            snapshot = self._context.snapshot()
            blocks = snapshot.blocks_in(network.id)
            holder = next((b for b in blocks if b.prefix == prefix), None)
            if holder is not None and holder.owner == host.id:
                return await self._set_state(holder, BlockState.CONFIRMED)
            if holder is not None:
                raise Conflict(
                    f"block {prefix} of network {network.name} is held by another host", hint="netagent network inspect"
                )
            fixed = [claim.address for claim in snapshot.fixed if claim.network_id == network.id]
            inside = next((address for address in fixed if prefix is not None and address in prefix), None)
            if inside is not None:
                raise Conflict(f"block {prefix} of network {network.name} has the fixed address {inside} in it")
            chosen = prefix or choose_block(subnet, [b.prefix for b in blocks], fixed)
            is_known = access.unchanged(keys.host_key(host.id))
            block = await claim_block(access, network, subnet, chosen, host.id, is_known)
            if block is not None:
                return block
        raise Unavailable(f"no block of network {network.name} could be reserved", hint="try again in a moment")

    async def _set_state(self, block: Block, state: BlockState) -> Block:
        access = self._context.stores.cluster
        key = keys.block_key(block.network_id, block.prefix)
        for _ in range(ATTEMPTS):
            entry = access.entry(key)
            if entry is None:
                return block
            changed = replace(block, state=state)
            record = encode_block(changed, entry.value)
            guards = (Unchanged(key=key, revision=entry.revision),)
            if record == entry.value or await access.commit(guards, (Put(key=key, value=record),)):
                return changed
        raise Unavailable(f"block {block.prefix} is changed by others all the time", hint="try again")


def _subnet_for(network: Network, prefix: Prefix) -> Subnet:
    subnet = network.subnet_around(prefix)
    if subnet is None or subnet.reserved_block is None or not subnet.has_block(prefix):
        raise InvalidRequest(
            f"{prefix} is no block of network {network.name}",
            hint=", ".join(f"/{s.block_length} inside {s.prefix}, not the first" for s in network.subnets),
        )
    return subnet
