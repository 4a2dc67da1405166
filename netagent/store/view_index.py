"""The hosts and claims of a view as snapshots have them, brought up to date record by record."""

from collections.abc import Mapping
from typing import Any

from netagent.ipam.allocate import block_around
from netagent.model.address import is_inside
from netagent.model.block import Block, FixedAddress
from netagent.model.claims import Claims
from netagent.model.host import Host
from netagent.model.host_index import Hosts
from netagent.model.ids import HostId, NetworkId
from netagent.model.network import Network
from netagent.model.persistent_map import PersistentSet
from netagent.store import keys


class ViewIndex:
    """Hosts, those that live, and the claims that lie where their network says."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        """What is taken up in the three below, by key."""
        self.hosts = Hosts()
        self.live: PersistentSet[HostId] = PersistentSet()
        self.claims = Claims()

    def take(self, values: Mapping[str, Any], networks: Mapping[NetworkId, Network]) -> None:
        """Exchange what is known under some keys for ``values``, None where nothing is any more."""
        put: list[Any] = []
        gone: list[Any] = []
        for key, value in values.items():
            known = self._values.pop(key, None)
            if value is not None and _lies_right(key, value, networks):
                self._values[key] = value
            fresh = self._values.get(key)
            if fresh is not known:
                put.append(fresh)
                gone.append(known)
        # The value of a lease is the host's id.
        self.live = self.live.updated(_only(str, put), gone=_only(str, gone))
        self.hosts = self.hosts.updated(_only(Host, put), gone=[host.id for host in _only(Host, gone)])
        self.claims = self.claims.updated(_only(Block | FixedAddress, put), gone=_only(Block | FixedAddress, gone))

    def __contains__(self, key: str) -> bool:
        return key in self._values


def _only(kind: Any, values: list[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, kind)]


def _lies_right(key: str, value: Any, networks: Mapping[NetworkId, Network]) -> bool:
    """Tell whether a claim lies in its network's subnets, and under its block's key; other records always do."""
    if not isinstance(value, Block | FixedAddress):
        return key.startswith((keys.HOSTS, keys.LIVE))
    network = networks.get(value.network_id)
    if network is None:
        return False
    if isinstance(value, Block):
        subnet = network.subnet_around(value.prefix)
        return subnet is not None and subnet.has_block(value.prefix)
    subnet = network.subnet_of(value.address)
    if subnet is None or not is_inside(block_around(subnet, value.address), subnet.prefix):
        return False
    return key == keys.address_key(value.network_id, block_around(subnet, value.address), value.address)
