"""How the devices that netagent makes are called, and the MACs that they have on every host by the same rule."""

from netagent.firewall import spoof
from netagent.model.address import Mac, derive_mac
from netagent.model.ids import EndpointId, HostId, NetworkId, short
from netagent.model.network import Network


def bridge_name(network: Network) -> str:
    """Return the name of a network's bridge."""
    return network.bridge or f"nab{short(network.id)}"


def veth_name(endpoint_id: EndpointId) -> str:
    """Return the name of the host's end of an endpoint's veth pair."""
    return f"{spoof.PORT_PREFIX}{short(endpoint_id)}"


def bridge_mac(network_id: NetworkId, host_id: HostId) -> Mac:
    """Return the MAC of a network's bridge on one host: its containers' gateway."""
    return derive_mac("bridge", network_id, host_id)


def veth_mac(endpoint_id: EndpointId) -> Mac:
    """Return the MAC of the host's end of an endpoint's veth pair."""
    return derive_mac("veth", endpoint_id)
