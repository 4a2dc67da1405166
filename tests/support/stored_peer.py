"""A host that exists in the store only, and is not live: what others do about it, without its agent's part."""

import json

from netagent.lab.host import Host
from netagent.model.address import parse_address, parse_prefix
from netagent.model.block import Block
from netagent.model.host import Host as ModelHost
from netagent.model.ids import HostId, NetworkId
from netagent.store import keys
from netagent.store.records import encode_block, encode_host
from tests.support.hosts import netagent
from tests.support.lab import eventually

PEER = ModelHost(
    id=HostId("00000000-0000-4000-8000-000000000009"), name="peer", underlay=(parse_address("198.18.0.99"),), mtu=1500
)
BLOCK = "192.168.200.0/24"


def peer_records(network: str) -> dict[str, str]:
    """Return the records of the host and its block of the network with this id, by key."""
    prefix = parse_prefix(BLOCK)
    block = Block(network_id=NetworkId(network), prefix=prefix, owner=PEER.id, epoch=1, own_address=prefix[0])
    records = {
        keys.host_key(PEER.id): encode_host(PEER),
        keys.block_key(block.network_id, block.prefix): encode_block(block),
    }
    return {key: value.decode() for key, value in records.items()}


def peer_comes(host: Host, network: str) -> None:
    """Put the records into the store, and wait until ``host`` leads there, if its agent runs."""
    for key, value in peer_records(_id_of(host, network)).items():
        _etcdctl(host, "put", key, stdin=value)
    eventually(lambda: not host.agent.running or BLOCK in host.run("ip", "route").stdout)


def peer_goes(host: Host) -> None:
    """Delete the records, and wait until ``host`` leads there no more, if its agent runs."""
    for prefix in (keys.BLOCKS, keys.HOSTS):
        for key in _etcdctl(host, "get", "--prefix", prefix, "--keys-only").split():
            if key.endswith((f"/{BLOCK.replace('/', '-')}", PEER.id)):
                _etcdctl(host, "del", key)
    eventually(lambda: not host.agent.running or BLOCK not in host.run("ip", "route").stdout)


def _id_of(host: Host, network: str) -> str:
    (details,) = json.loads(netagent(host, "network", "inspect", network).stdout)
    return str(details["Id"])


def _etcdctl(host: Host, *arguments: str, stdin: str = "") -> str:
    return host.run("etcdctl", "--endpoints", "http://198.18.0.201:2379", *arguments, stdin=stdin).stdout
