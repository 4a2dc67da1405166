"""Messages <-> the values of ``model`` and ``services.requests``. Pure; it checks nothing beyond what types say."""

from collections.abc import Iterable, Iterator, Mapping

from netagent.model.container import ContainerKind
from netagent.model.endpoint import Endpoint, EndpointAddress
from netagent.model.host import Host
from netagent.model.ids import NetworkId
from netagent.model.network import Network, Scope, Subnet
from netagent.model.port import PortMapping
from netagent.services.events import Event
from netagent.services.info import AgentInfo
from netagent.services.names import natural_key
from netagent.services.requests import (
    Attachment,
    Connection,
    ContainerView,
    HostView,
    LimitChange,
    NetworkChange,
    NetworkView,
    NewConnection,
    NewContainer,
    NewNetwork,
)
from netagent.v1 import agent_pb2, containers_pb2, events_pb2, hosts_pb2, networks_pb2

_LARGEST = 2**64 - 1
"""What a message can count; an IPv6 subnet may hold more."""


def _ordered(entries: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of a message's map in an order that is the same each time; protobuf has none."""
    return dict(sorted(entries.items()))


def decode_new_network(message: networks_pb2.CreateNetworkRequest) -> NewNetwork:
    """Return the network that is asked for."""
    return NewNetwork(
        name=message.name,
        driver=message.driver or "bridge",
        subnets=tuple(message.subnets),
        gateways=tuple(message.gateways),
        ip_ranges=tuple(message.ip_ranges),
        aux_addresses=_ordered(message.aux_addresses),
        host_prefix=message.host_prefix or None,
        internal=message.internal,
        ipv4=message.ipv4 if message.HasField("ipv4") else None,
        ipv6=message.ipv6,
        force=message.force,
        options=_ordered(message.options),
        labels=_ordered(message.labels),
    )


def decode_new_container(message: containers_pb2.CreateContainerRequest) -> NewContainer:
    """Return the container that is asked for."""
    return NewContainer(
        command=tuple(message.command),
        name=message.name,
        connection=decode_connection(message.connection),
        hostname=message.hostname,
        environment=tuple(message.environment),
        mounts=tuple(message.mounts),
        rootfs=message.rootfs,
        terminal=message.terminal,
        interactive=message.interactive,
        auto_remove=message.auto_remove,
        working_directory=message.working_directory or "/",
        dns=tuple(message.dns),
        dns_search=tuple(message.dns_search),
        dns_options=tuple(message.dns_options),
        extra_hosts=tuple(message.extra_hosts),
        links=tuple(message.links),
        labels=dict(message.labels),
        sysctls=tuple(message.sysctls),
        cap_add=tuple(message.cap_add),
        cap_drop=tuple(message.cap_drop),
    )


def decode_attachment(message: containers_pb2.AttachRequest) -> Attachment:
    """Return the attachment that is asked for."""
    return Attachment(
        name=message.name,
        netns=message.netns,
        connection=decode_connection(message.connection),
        interface=message.interface,
        labels=dict(message.labels),
    )


def decode_connection(message: containers_pb2.Connection) -> Connection:
    """Return how a container is to be connected."""
    return Connection(
        networks=tuple(message.networks),
        addresses=tuple(message.addresses),
        mac=message.mac,
        aliases=tuple(message.aliases),
        publish=tuple(message.publish),
        expose=tuple(message.expose),
        publish_all=message.publish_all,
        rate_in=message.rate_in,
        rate_out=message.rate_out,
        gw_priority=message.gw_priority,
        link_local=tuple(message.link_local),
    )


def decode_new_connection(message: networks_pb2.ConnectContainerRequest) -> NewConnection:
    """Return the connection that is asked for."""
    return NewConnection(
        network=message.network,
        container=message.container,
        addresses=tuple(message.addresses),
        mac=message.mac,
        aliases=tuple(message.aliases),
        rate_in=message.rate_in,
        rate_out=message.rate_out,
        gw_priority=message.gw_priority,
        link_local=tuple(message.link_local),
        interface=message.interface,
        driver_options=tuple(message.driver_options),
    )


def decode_limit_change(message: containers_pb2.UpdateContainerRequest) -> LimitChange:
    """Return what is to be changed of a container's limits."""
    return LimitChange(
        container=message.name,
        network=message.network,
        rate_in=message.rate_in if message.HasField("rate_in") else None,
        rate_out=message.rate_out if message.HasField("rate_out") else None,
    )


def decode_network_change(message: networks_pb2.UpdateNetworkRequest) -> NetworkChange:
    """Return what is to be changed of a network."""
    return NetworkChange(
        name=message.name,
        driver=message.driver,
        labels=_ordered(message.labels),
        removed_labels=tuple(message.removed_labels),
        options=_ordered(message.options),
        subnets=tuple(message.subnets),
        gateways=tuple(message.gateways),
        ip_ranges=tuple(message.ip_ranges),
        removed_subnets=tuple(message.removed_subnets),
        force=message.force,
    )


def encode_network(network: Network, *, used_by: int = 0) -> networks_pb2.Network:
    """Return a network as a message; ``used_by`` containers are connected to it."""
    return networks_pb2.Network(
        id=network.id,
        name=network.name,
        driver=network.driver,
        scope=network.scope,
        subnets=[
            networks_pb2.Subnet(
                prefix=str(subnet.prefix),
                gateway=str(subnet.gateway),
                block_length=subnet.block_length,
                ip_range="" if subnet.ip_range is None else str(subnet.ip_range),
                aux_addresses={name: str(address) for name, address in subnet.auxiliary},
            )
            for subnet in network.subnets
        ],
        vni=network.vni or 0,
        internal=network.internal,
        mtu=network.mtu or 0,
        options=network.options,
        labels=network.labels,
        created=network.created,
        state=network.state,
        used_by=used_by,
    )


def encode_network_details(view: NetworkView, *, self_id: str) -> networks_pb2.NetworkDetails:
    """Return a network with its endpoints, blocks and peers; ``self_id`` is the host that answers."""
    return networks_pb2.NetworkDetails(
        network=encode_network(view.network),
        endpoints=[
            networks_pb2.NetworkEndpoint(
                id=endpoint.id,
                container_id=endpoint.container_id,
                container_name=endpoint.container_name,
                mac=endpoint.mac,
                addresses=[f"{a.address}/{_prefix_length(a, view.network)}" for a in endpoint.addresses],
                host_name=host.name,
                local=host.id == self_id,
            )
            for endpoint, host in view.endpoints
        ],
        blocks=[
            networks_pb2.Block(
                prefix=str(block.prefix),
                host_id=block.owner,
                host_name=host.name if host else "",
                own_address="" if block.own_address is None else str(block.own_address),
                state=block.state,
                epoch=block.epoch,
                used=used,
            )
            for block, host, used in view.blocks
        ],
        effective_mtu=view.effective_mtu,
        peers=[
            networks_pb2.Peer(name=host.name, address=str(host.underlay[0]) if host.underlay else "")
            for host in _peers(view)
        ],
        usage=[
            networks_pb2.SubnetUsage(
                prefix=str(usage.subnet.prefix),
                in_use=min(usage.in_use, _LARGEST),
                available=min(usage.available, _LARGEST),
            )
            for usage in view.usage
        ],
    )


def encode_container(view: ContainerView, *, directory: str) -> containers_pb2.Container:
    """Return a container with its endpoints; ``directory`` is where its files would be if netagent runs it."""
    container = view.container
    return containers_pb2.Container(
        id=container.id,
        name=container.name,
        kind=container.kind,
        state=container.state,
        network_mode=container.mode,
        shares=container.shares or "",
        sandbox=container.sandbox,
        command=container.command,
        hostname=container.hostname,
        created=container.created,
        started=container.started,
        finished=container.finished,
        exit_code=container.exit_code,
        auto_remove=container.auto_remove,
        endpoints=[encode_endpoint(endpoint, network) for endpoint, network in view.endpoints],
        pid=view.pid,
        terminal=view.terminal,
        directory=directory if container.kind is ContainerKind.RUN else "",
        runtime_id=container.runtime_id,
        exposed=container.exposed,
        links=[f"{link.target}:{link.alias}" for link in container.links],
        extra_hosts=[f"{extra.name}:{extra.address}" for extra in container.extra_hosts],
        dns=container.resolver.nameservers,
        dns_search=container.resolver.search,
        dns_options=container.resolver.options,
        labels=dict(container.labels),
        sysctls=dict(view.sysctls),
        cap_add=view.cap_add,
        cap_drop=view.cap_drop,
    )


def encode_endpoint(endpoint: Endpoint, network: Network | None) -> containers_pb2.Endpoint:
    """Return an endpoint as its container sees it: without gateway where its network is no way out."""
    subnets = _subnets_of(endpoint.addresses, network)
    leads_out = network is not None and not network.internal and network.default_route
    return containers_pb2.Endpoint(
        id=endpoint.id,
        network_id=endpoint.network_id,
        network_name=network.name if network else "",
        interface=endpoint.interface,
        mac=endpoint.mac,
        addresses=[
            containers_pb2.EndpointAddress(
                address=str(address.address), prefix_length=_prefix_length(address, network), fixed=address.fixed
            )
            for address in endpoint.addresses
        ],
        gateways=[str(subnet.gateway) for subnet in subnets] if leads_out else [],
        ports=[encode_port(mapping) for mapping in endpoint.ports],
        aliases=endpoint.aliases,
        state=endpoint.state,
        rate_in=endpoint.rate_in.bits if endpoint.rate_in else 0,
        rate_out=endpoint.rate_out.bits if endpoint.rate_out else 0,
        gw_priority=endpoint.gw_priority,
        link_local=map(str, endpoint.link_local),
        routed=network.routed if network else (),
    )


def encode_port(mapping: PortMapping) -> containers_pb2.PublishedPort:
    """Return a mapping of published ports as a message."""
    return containers_pb2.PublishedPort(
        protocol=mapping.protocol,
        container_port=mapping.container_port,
        host_port=mapping.host_port,
        host_address="" if mapping.host_address is None else str(mapping.host_address),
        count=mapping.count,
        sources=map(str, mapping.sources),
    )


def encode_host(view: HostView) -> hosts_pb2.Host:
    """Return a host as a message."""
    host = view.host
    return hosts_pb2.Host(
        id=host.id,
        name=host.name,
        underlay=[str(address) for address in host.underlay],
        mtu=host.mtu,
        interface=host.interface,
        live=view.live,
        self=view.is_self,
        blocks=[f"{network.name} {block.prefix}" for network, block in view.blocks],
        conflicts=view.conflicts,
        seized=view.seized,
        problems=view.problems,
    )


def encode_host_details(view: HostView) -> hosts_pb2.HostDetails:
    """Return a host with everything it holds as a message."""

    def name(network_id: NetworkId) -> str:
        network = view.networks.get(network_id)
        return network.name if network else network_id

    return hosts_pb2.HostDetails(
        host=encode_host(view),
        blocks=[
            hosts_pb2.HostBlock(network=network.name, prefix=str(block.prefix), state=block.state, epoch=block.epoch)
            for network, block in view.blocks
        ],
        addresses=[
            hosts_pb2.HostAddress(network=name(claim.network_id), address=str(claim.address), epoch=claim.epoch)
            for claim in view.fixed
        ],
        endpoints=[
            hosts_pb2.HostEndpoint(
                container=endpoint.container_name,
                network=name(endpoint.network_id),
                addresses=[str(given.address) for given in endpoint.addresses],
            )
            for endpoint in view.endpoints
        ],
        features=sorted(view.host.features),
        on_link=[str(prefix) for prefix in view.host.on_link],
    )


def encode_event(event: Event) -> events_pb2.Event:
    """Return an event as a message."""
    return events_pb2.Event(
        time=event.time, type=event.type, action=event.action, id=event.id, attributes=event.attributes
    )


def encode_info(info: AgentInfo) -> agent_pb2.InfoResponse:
    """Return what the agent says of itself."""
    return agent_pb2.InfoResponse(
        version=info.version,
        host_id=info.host.id,
        host_name=info.host.name,
        underlay=[str(address) for address in info.host.underlay],
        store=info.store,
        store_connected=info.store_connected,
        store_error=info.store_error,
        kernel_error=info.kernel_error,
        refused_records=info.refused,
        run_dir=info.run_dir,
        store_revision=info.store_revision,
        store_listings=info.store_listings,
        store_statistics=agent_pb2.StoreStatistics(
            repeated_calls=info.store_statistics.repeated_calls,
            lost_replies=info.store_statistics.lost_replies,
            unknown_outcomes=info.store_statistics.unknown_outcomes,
            missed_changes=info.store_missed,
            silent_s=info.store_statistics.silent_s,
        ),
        lease_remaining_s=info.lease_remaining_s,
        foreign_cluster=info.foreign_cluster,
    )


def _subnets_of(addresses: Iterable[EndpointAddress], network: Network | None) -> Iterator[Subnet]:
    for address in addresses:
        if network is not None and (subnet := network.subnet_of(address.address)) is not None:
            yield subnet


def _prefix_length(address: EndpointAddress, network: Network | None) -> int:
    """Return the length of the address's subnet; of the address alone if its network is gone."""
    subnet = next(_subnets_of((address,), network), None)
    return address.address.max_prefixlen if subnet is None else subnet.prefix.prefixlen


def _peers(view: NetworkView) -> list[Host]:
    if view.network.scope is not Scope.GLOBAL:
        return []
    hosts = {host.id: host for _, host, _ in view.blocks if host is not None}
    hosts |= {host.id: host for _, host in view.endpoints}
    return sorted(hosts.values(), key=lambda host: natural_key(host.name))
