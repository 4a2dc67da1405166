"""Which of a host's containers are linked, as elements of the firewall.

An element stands for two endpoints and is rendered with either, so it comes with the later one and goes with the
first. An endpoint that is being taken down takes along what it had with those that are going too.
"""

from collections.abc import Mapping

from netagent.firewall import linked
from netagent.firewall.ruleset import merge
from netagent.model.endpoint import Endpoint
from netagent.model.network import Network
from netagent.model.served import served_ports
from netagent.model.snapshot import Snapshot


def link_elements(snapshot: Snapshot, endpoint: Endpoint, network: Network) -> Mapping[str, frozenset[str]]:
    """Return the elements for the links of ``endpoint`` and to it, in a network without ICC; else none are needed."""
    if network.icc:
        return {}
    others = [
        other
        for other in snapshot.endpoints_in(network.id)
        if other.id != endpoint.id and (other.in_kernel or not endpoint.in_kernel)
    ]
    pairs = [pair for other in others for pair in ((endpoint, other), (other, endpoint))]
    return merge(
        linked.elements(linking, target, served_ports(target, snapshot.containers.get(target.container_id)))
        for linking, target in pairs
        if _links(snapshot, linking, target)
    )


def _links(snapshot: Snapshot, linking: Endpoint, target: Endpoint) -> bool:
    container = snapshot.containers.get(linking.container_id)
    return container is not None and any(link.target == target.container_name for link in container.links)
