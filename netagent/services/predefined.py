"""The networks that are always there: ``bridge`` with a free subnet of its own, ``host`` and ``none``."""

import logging

from netagent.errors import Exhausted, Unavailable
from netagent.ipam.pools import choose_subnet
from netagent.model.ids import NetworkId
from netagent.model.network import Network, Scope, Subnet
from netagent.reconcile.ports import Absent, Put
from netagent.services.context import Context
from netagent.store import keys
from netagent.store.records import encode_network

log = logging.getLogger("netagent.networks")

NULL_DRIVERS = {"host": "host", "none": "null"}
"""Predefined networks that give no interface -> what Docker calls their driver."""


async def create_predefined(context: Context) -> None:
    """Create those of the predefined networks that this host does not have yet."""
    access = context.stores.local
    for name in ("bridge", *NULL_DRIVERS):
        key = keys.network_key(name)
        if access.entry(key) is not None:
            continue
        subnets: tuple[Subnet, ...] = ()
        if name not in NULL_DRIVERS:
            networks = context.snapshot().networks.values()
            try:
                subnets = (choose_subnet(Scope.LOCAL, networks, await context.kernel.facts(), context.pools),)
            except Exhausted as error:
                log.error("there is no network %s: %s", name, error)
                continue
        network = Network(
            id=NetworkId(context.new_id()),
            name=name,
            driver=NULL_DRIVERS.get(name, "bridge"),
            scope=Scope.LOCAL,
            subnets=subnets,
            created=context.now(),
        )
        if not await access.commit((Absent(key=key),), (Put(key=key, value=encode_network(network)),)):
            raise Unavailable(f"the predefined network {name} could not be created", hint="start the agent again")
