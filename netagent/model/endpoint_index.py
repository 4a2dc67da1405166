"""A host's endpoints at one moment, by id, network and container."""

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass, field
from typing import TypeVar

from netagent.model.address import Prefix
from netagent.model.endpoint import Endpoint
from netagent.model.ids import ContainerId, EndpointId, NetworkId

_Key = TypeVar("_Key")
_Rows = dict[EndpointId, Endpoint]


@dataclass(frozen=True, slots=True, eq=False)
class Endpoints(Mapping[EndpointId, Endpoint]):
    """Never changes: ``put`` and ``without`` return another that shares every group but the one concerned.

    So among thousands a change costs copies of dicts, in C, and not a look at each endpoint.
    """

    _rows: _Rows = field(default_factory=dict)
    _networks: dict[NetworkId, _Rows] = field(default_factory=dict)
    _containers: dict[ContainerId, _Rows] = field(default_factory=dict)

    @classmethod
    def of(cls, endpoints: Iterable[Endpoint]) -> "Endpoints":
        """Return ``endpoints`` by id, network and container."""
        rows: _Rows = {}
        networks: dict[NetworkId, _Rows] = {}
        containers: dict[ContainerId, _Rows] = {}
        for endpoint in endpoints:
            rows[endpoint.id] = endpoint
            networks.setdefault(endpoint.network_id, {})[endpoint.id] = endpoint
            containers.setdefault(endpoint.container_id, {})[endpoint.id] = endpoint
        return cls(rows, networks, containers)

    def put(self, endpoint: Endpoint) -> "Endpoints":
        """Return these with ``endpoint``, in the place of the one with its id."""
        known = self._rows.get(endpoint.id, endpoint)
        if (known.network_id, known.container_id) != (endpoint.network_id, endpoint.container_id):
            return self.without(endpoint.id).put(endpoint)
        return Endpoints(
            {**self._rows, endpoint.id: endpoint},
            _put(self._networks, endpoint.network_id, endpoint),
            _put(self._containers, endpoint.container_id, endpoint),
        )

    def without(self, identity: EndpointId) -> "Endpoints":
        """Return these without the endpoint of this id, if there is one."""
        known = self._rows.get(identity)
        if known is None:
            return self
        rows = dict(self._rows)
        del rows[identity]
        return Endpoints(
            rows, _remove(self._networks, known.network_id, known), _remove(self._containers, known.container_id, known)
        )

    @property
    def networks(self) -> KeysView[NetworkId]:
        """The networks that have endpoints here."""
        return self._networks.keys()

    def in_network(self, network_id: NetworkId) -> tuple[Endpoint, ...]:
        """Return the endpoints in a network."""
        return tuple(self._networks.get(network_id, {}).values())

    def inhabit(self, network_id: NetworkId, prefix: Prefix) -> bool:
        """Tell whether an endpoint in a network has an address in ``prefix``, in whatever state."""
        endpoints = self._networks.get(network_id, {}).values()
        return any(given.address in prefix for endpoint in endpoints for given in endpoint.addresses)

    def of_container(self, container_id: ContainerId) -> tuple[Endpoint, ...]:
        """Return a container's endpoints."""
        return tuple(self._containers.get(container_id, {}).values())

    def __getitem__(self, identity: EndpointId) -> Endpoint:
        return self._rows[identity]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[EndpointId]:
        return iter(self._rows)

    # The dict's own: those of Mapping ask for each endpoint by its id.

    def __contains__(self, identity: object) -> bool:
        return identity in self._rows

    def keys(self) -> KeysView[EndpointId]:
        return self._rows.keys()

    def values(self) -> ValuesView[Endpoint]:
        return self._rows.values()

    def items(self) -> ItemsView[EndpointId, Endpoint]:
        return self._rows.items()


def _put(groups: dict[_Key, _Rows], key: _Key, endpoint: Endpoint) -> dict[_Key, _Rows]:
    return {**groups, key: {**groups.get(key, {}), endpoint.id: endpoint}}


def _remove(groups: dict[_Key, _Rows], key: _Key, endpoint: Endpoint) -> dict[_Key, _Rows]:
    left = dict(groups[key])
    del left[endpoint.id]
    rest = {**groups, key: left}
    if not left:
        del rest[key]
    return rest
