"""The networks that are always there: ``bridge`` with a free subnet of its own, ``host`` and ``none``."""

import logging

from netagent.errors import Conflict, Exhausted, Unavailable
from netagent.ipam.pools import choose_subnet, refuse_overlap
from netagent.model.ids import NetworkId
from netagent.model.network import DEFAULT_NETWORK, Network, Scope, Subnet
from netagent.reconcile.ports import Absent, Delete, Put
from netagent.services.context import Context
from netagent.store import keys
from netagent.store.network_records import encode_network

log = logging.getLogger("netagent.networks")

NULL_DRIVERS = {"host": "host", "none": "null"}
"""Predefined networks that give no interface -> what Docker calls their driver."""


async def create_predefined(context: Context) -> None:
    """Create those of the predefined networks that this host does not have yet, ``bridge`` as it is configured."""
    for name in (DEFAULT_NETWORK, *NULL_DRIVERS):
        known = context.stores.local.entry(keys.network_key(name))
        if known is None:
            await _create(context, name)
        elif name == DEFAULT_NETWORK:
            await _adapt(context)


async def _create(context: Context, name: str) -> None:
    subnets: tuple[Subnet, ...] = ()
    if name not in NULL_DRIVERS:
        try:
            subnets = (await _choose_default(context),)
        except Exhausted as error:
            log.error("there is no network %s: %s", name, error)
            return
    key = keys.network_key(name)
    record = encode_network(_network(context, name, subnets))
    if not await context.stores.local.commit((Absent(key=key),), (Put(key=key, value=record),)):
        raise Unavailable(f"the predefined network {name} could not be created", hint="start the agent again")


async def _choose_default(context: Context, *, instead_of: Network | None = None) -> Subnet:
    """Return the subnet of the default network: the configured one, or one that is free; Conflict if it overlaps."""
    networks = [network for network in context.snapshot().networks.values() if network is not instead_of]
    facts = await context.kernel.facts()
    if context.default_subnet is None:
        return choose_subnet(Scope.LOCAL, networks, facts, context.pools)
    try:
        refuse_overlap((context.default_subnet,), networks, facts)
    except Conflict as error:
        raise Conflict(f"bip: {error.message}", hint="choose another bip in agent.toml") from None
    return context.default_subnet


async def _adapt(context: Context) -> None:
    """Give the default network its configured subnet, as a new network in the place of an old one that nobody uses."""
    wanted = context.default_subnet
    old = next(n for n in context.snapshot().networks.values() if n.is_predefined and n.name == DEFAULT_NETWORK)
    if wanted is None or wanted in old.subnets:
        return
    users = sorted(endpoint.container_name for endpoint in context.snapshot().endpoints_in(old.id))
    if users:
        log.error(
            "network %s keeps the subnet %s instead of bip: %s is connected; remove it and start the agent again",
            *(old.name, ", ".join(str(subnet.prefix) for subnet in old.subnets), ", ".join(users)),
        )
        return
    subnet = await _choose_default(context, instead_of=old)
    access, key = context.stores.local, keys.network_key(old.name)
    blocks = [Delete(key=k) for k in access.mirror.entries if k.startswith(keys.blocks_prefix(old.id))]
    put = Put(key=key, value=encode_network(_network(context, old.name, (subnet,))))
    if not await access.commit((access.unchanged(key),), (put, *blocks)):
        raise Unavailable(f"the predefined network {old.name} could not be changed", hint="start the agent again")
    context.journal.forget_network(old.id)


def _network(context: Context, name: str, subnets: tuple[Subnet, ...]) -> Network:
    return Network(
        id=NetworkId(context.new_id()),
        name=name,
        driver=NULL_DRIVERS.get(name, "bridge"),
        scope=Scope.LOCAL,
        subnets=subnets,
        created=context.now(),
    )
