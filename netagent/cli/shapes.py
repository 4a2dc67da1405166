"""Docker's JSON of containers and networks, and what netagent adds to it. Pure."""

from typing import TYPE_CHECKING

from netagent.cli.bindings import bindings_of, port_map
from netagent.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from netagent.v1.containers_pb2 import Container, Endpoint, EndpointAddress
    from netagent.v1.networks_pb2 import Block, Network, NetworkDetails, NetworkEndpoint, Subnet

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which stands for "not yet" in Docker's JSON."""


def driver_name(network: "Network") -> str:
    """Return the driver's name as Docker shows it: that of ``none`` is ``null``."""
    return "null" if network.name == "none" else network.driver


def network_shape(details: "NetworkDetails") -> Json:
    """Return one element of ``docker network inspect``; from ``VNI`` on it is ours."""
    network = details.network
    versions = {6 if ":" in subnet.prefix else 4 for subnet in network.subnets}
    shape: Json = {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": network.scope,
        "Driver": driver_name(network),
        "EnableIPv4": 4 in versions,
        "EnableIPv6": 6 in versions,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [_subnet(subnet) for subnet in network.subnets],
        },
        "Internal": network.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Options": dict(sorted(network.options.items())),
        "Labels": dict(sorted(network.labels.items())),
        "Containers": {e.container_id if e.local else f"ep-{e.id}": _network_endpoint(e) for e in details.endpoints},
    }
    if details.peers:
        shape["Peers"] = [{"Name": peer.name, "IP": peer.address} for peer in details.peers]
    if details.usage:
        shape["Status"] = {
            "IPAM": {
                "Subnets": {
                    usage.prefix: {"IPsInUse": usage.in_use, "DynamicIPsAvailable": usage.available}
                    for usage in details.usage
                }
            }
        }
    if network.vni:
        shape["VNI"] = network.vni
    if details.effective_mtu:
        shape["MTU"] = details.effective_mtu
    shape["State"] = network.state
    shape["Blocks"] = [_block(block) for block in details.blocks]
    return shape


def _subnet(subnet: "Subnet") -> Json:
    shape: Json = {"Subnet": subnet.prefix}
    if subnet.ip_range:
        shape["IPRange"] = subnet.ip_range
    shape["Gateway"] = subnet.gateway
    if subnet.aux_addresses:
        shape["AuxiliaryAddresses"] = dict(sorted(subnet.aux_addresses.items()))
    return shape


def _network_endpoint(endpoint: "NetworkEndpoint") -> Json:
    return {
        "Name": endpoint.container_name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": next((a for a in endpoint.addresses if ":" not in a), ""),
        "IPv6Address": next((a for a in endpoint.addresses if ":" in a), ""),
        "Host": endpoint.host_name,
    }


def _block(block: "Block") -> Json:
    return {
        "Prefix": block.prefix,
        "Host": block.host_name,
        "HostId": block.host_id,
        "OwnAddress": block.own_address,
        "State": block.state,
        "Epoch": block.epoch,
        "IPsInUse": block.used,
    }


def container_shape(container: "Container") -> Json:
    """Return one element of ``docker inspect``, as far as it means something here; ``Kind`` is ours."""
    command = list(container.command)
    is_running = container.state == "running"
    return {
        "Id": container.id,
        "Created": container.created,
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": {
            "Status": container.state,
            "Running": is_running,
            "Pid": container.pid,
            "ExitCode": container.exit_code,
            "StartedAt": container.started or NEVER,
            "FinishedAt": container.finished or NEVER,
        },
        "Name": f"/{container.name}",
        "Kind": container.kind,
        "RuntimeId": container.runtime_id,
        "HostConfig": {
            "NetworkMode": network_mode(container),
            "PortBindings": _port_bindings(container),
            "AutoRemove": container.auto_remove,
            "Links": [f"/{target}:/{container.name}/{alias}" for target, alias in _links(container)] or None,
            "ExtraHosts": list(container.extra_hosts) or None,
            "Dns": list(container.dns),
            "DnsSearch": list(container.dns_search),
            "DnsOptions": list(container.dns_options),
            "Sysctls": dict(sorted(container.sysctls.items())),
            "CapAdd": list(container.cap_add) or None,
            "CapDrop": list(container.cap_drop) or None,
        },
        "Config": {
            "Hostname": container.hostname,
            "Tty": container.terminal,
            "Cmd": command,
            "ExposedPorts": {port: {} for port in container.exposed} or None,
            "Labels": dict(sorted(container.labels.items())),
        },
        "NetworkSettings": _network_settings(container),
    }


def network_mode(container: "Container") -> str:
    """Return how the container is connected, as ``--network`` says it: the first network's name if by networks."""
    if container.network_mode == "container":
        return f"container:{container.shares}"
    if container.network_mode == "networks":
        return container.endpoints[0].network_name if container.endpoints else "bridge"
    return container.network_mode


def _network_settings(container: "Container") -> Json:
    networks = {
        endpoint.network_name or endpoint.network_id: _endpoint(endpoint, container) for endpoint in container.endpoints
    }
    first = next(iter(networks.values()), None) or _addressing((), ())
    return {
        "SandboxKey": container.sandbox,
        "Ports": port_map(bindings_of(container), container.exposed),
        **{key: first[key] for key in _addressing((), ())},
        "MacAddress": first.get("MacAddress", ""),
        "Networks": networks,
    }


def _port_bindings(container: "Container") -> Json:
    """Return ``HostConfig.PortBindings``: one object for each ``-p``, with no address where it names none."""
    shown: Json = {}
    for port in (port for endpoint in container.endpoints for port in endpoint.ports):
        for index in range(port.count or 1):
            bindings = shown.setdefault(f"{port.container_port + index}/{port.protocol}", [])
            bindings.append({"HostIp": port.host_address, "HostPort": str(port.host_port + index)})
    return shown


def _links(container: "Container") -> list[tuple[str, str]]:
    return [(target, alias) for target, _, alias in (link.partition(":") for link in container.links)]


def _dns_names(endpoint: "Endpoint", container: "Container") -> list[str] | None:
    """Return the names that DNS answers in a network; in the default one there are none."""
    if endpoint.network_name == "bridge":
        return None
    names = (container.name, *endpoint.aliases, container.id[:12], container.hostname)
    return list(dict.fromkeys(name for name in names if name))


def _endpoint(endpoint: "Endpoint", container: "Container") -> Json:
    fixed: Json = {
        "IPv6Address" if ":" in address.address else "IPv4Address": address.address
        for address in endpoint.addresses
        if address.fixed
    }
    if endpoint.link_local:
        fixed["LinkLocalIPs"] = list(endpoint.link_local)
    return {
        "IPAMConfig": fixed or None,
        "Links": list(container.links) or None,
        "Aliases": list(endpoint.aliases) or None,
        "DNSNames": _dns_names(endpoint, container),
        "DriverOpts": None,
        "GwPriority": endpoint.gw_priority,
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.id,
        "Interface": endpoint.interface,
        "MacAddress": endpoint.mac,
        "RateIn": endpoint.rate_in,
        "RateOut": endpoint.rate_out,
        **_addressing(endpoint.addresses, endpoint.gateways),
    }


def _addressing(addresses: "Iterable[EndpointAddress]", gateways: "Iterable[str]") -> Json:
    four = next(((a.address, a.prefix_length) for a in addresses if ":" not in a.address), ("", 0))
    six = next(((a.address, a.prefix_length) for a in addresses if ":" in a.address), ("", 0))
    return {
        "Gateway": next((g for g in gateways if ":" not in g), ""),
        "IPAddress": four[0],
        "IPPrefixLen": four[1],
        "IPv6Gateway": next((g for g in gateways if ":" in g), ""),
        "GlobalIPv6Address": six[0],
        "GlobalIPv6PrefixLen": six[1],
    }
