"""The layout of the store, in one table. design.md, section 4, says what each key means.

========================================== ==================================================
``hosts/<uuid>``                           permanent record of a host
``live/<uuid>``                            bound to the agent's lease: liveness, nothing else
``drains/<uuid>``                          a host that an operator drains: it gives its blocks back as they empty
``networks/<name>``                        a network; created only if absent
``gone/<network>``                         a network that was removed without all who held blocks of it: they follow
``numbers/<vni>``                          who owns a VNI
``generation``                             bumped by every change of a network
``epoch``                                  how often an operator took claims from a host; claims carry it
``removed/<uuid>``                         a host that an operator removed: should it come back, it learns of it here
``blocks/<network>/<address>-<length>``    a host's claim to a block
``addresses/<network>/<block>/<address>``  an endpoint's claim to a fixed address, below the block it lies in, so
                                           that one guard can tell whether a block has any
``endpoints/<host>/<network>/<endpoint>``  an endpoint, as its host last published it
========================================== ==================================================
"""

from netagent.model.address import Address, Prefix
from netagent.model.ids import EndpointId, HostId, NetworkId

ROOT = "/netagent/v1/"
GENERATION = f"{ROOT}generation"
EPOCH = f"{ROOT}epoch"
HOSTS = f"{ROOT}hosts/"
REMOVED = f"{ROOT}removed/"
LIVE = f"{ROOT}live/"
DRAINS = f"{ROOT}drains/"
NETWORKS = f"{ROOT}networks/"
GONE = f"{ROOT}gone/"
NUMBERS = f"{ROOT}numbers/"
BLOCKS = f"{ROOT}blocks/"
ADDRESSES = f"{ROOT}addresses/"
ENDPOINTS = f"{ROOT}endpoints/"


def host_key(host_id: HostId) -> str:
    """Return the key of a host's permanent record."""
    return f"{HOSTS}{host_id}"


def removed_key(host_id: HostId) -> str:
    """Return the key that says that an operator removed a host."""
    return f"{REMOVED}{host_id}"


def drain_key(host_id: HostId) -> str:
    """Return the key that exists while a host is being drained."""
    return f"{DRAINS}{host_id}"


def live_key(host_id: HostId) -> str:
    """Return the key that exists while a host's agent keeps its lease."""
    return f"{LIVE}{host_id}"


def network_key(name: str) -> str:
    """Return the key of a network's record."""
    return f"{NETWORKS}{name}"


def gone_key(network_id: NetworkId) -> str:
    """Return the key that says that a network was removed while hosts that held blocks of it were away."""
    return f"{GONE}{network_id}"


def number_key(vni: int) -> str:
    """Return the key that says who owns a VNI."""
    return f"{NUMBERS}{vni}"


def block_text(prefix: Prefix) -> str:
    """Return a block as it is written in keys, e.g. ``192.168.3.0-24``."""
    return f"{prefix.network_address}-{prefix.prefixlen}"


def blocks_prefix(network_id: NetworkId) -> str:
    """Return the prefix of all block claims in a network."""
    return f"{BLOCKS}{network_id}/"


def block_key(network_id: NetworkId, prefix: Prefix) -> str:
    """Return the key of the claim to a block."""
    return f"{blocks_prefix(network_id)}{block_text(prefix)}"


def addresses_prefix(network_id: NetworkId, block: Prefix) -> str:
    """Return the prefix of all fixed-address claims inside a block."""
    return f"{ADDRESSES}{network_id}/{block_text(block)}/"


def address_key(network_id: NetworkId, block: Prefix, address: Address) -> str:
    """Return the key of the claim to a fixed address."""
    return f"{addresses_prefix(network_id, block)}{address}"


def own_endpoints_prefix(host_id: HostId) -> str:
    """Return the prefix of all endpoints that a host publishes."""
    return f"{ENDPOINTS}{host_id}/"


def host_of_endpoint(key: str) -> HostId:
    """Return the host that publishes the endpoint of ``key``."""
    return HostId(key.removeprefix(ENDPOINTS).partition("/")[0])


def endpoint_key(host_id: HostId, network_id: NetworkId, endpoint_id: EndpointId) -> str:
    """Return the key under which a host publishes an endpoint."""
    return f"{own_endpoints_prefix(host_id)}{network_id}/{endpoint_id}"
