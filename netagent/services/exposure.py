"""Exposure: what of this host's containers can be reached, from where, through which rule, and what stands in the way.

The rows come from the same functions that make the rules, so they say what the kernel holds once it is up to date.
What other people's rules do with such a packet is judged by ``firewall/verdict.py``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from netagent.drivers import driver_named
from netagent.firewall import direct, publish
from netagent.firewall.marks import VXLAN_PORT
from netagent.firewall.packet import Packet
from netagent.firewall.verdict import Obstacle, Rules
from netagent.model.address import parse_address
from netagent.model.endpoint import Endpoint
from netagent.model.host import Host
from netagent.model.network import Network
from netagent.model.port import PortMapping
from netagent.model.snapshot import Snapshot
from netagent.plan.desired import HostPort, Target
from netagent.plan.linking import link_elements
from netagent.plan.names import bridge_name
from netagent.plan.peers import peers_of
from netagent.plan.render import networks_here
from netagent.services.context import Context
from netagent.services.names import natural_key

ANYWHERE, THIS_HOST, NETWORK = "anywhere", "this host", "network"
"""Where something can be reached from; by a link it is ``container NAME``."""

_TABLE = "inet netagent"
_INTERNAL = f"{_TABLE} forward: oifname @internal drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One way to a container. ``address`` and ports are the host's, or the container's own within its network.

    ``peers`` are the other hosts whose containers have this way, within a network. ``rule`` names table, set and
    element that open it. ``obstacles`` are what stops it all the same, for certain or maybe.
    """

    container: str
    container_id: str
    network: str
    reach: str
    version: int
    protocol: str
    address: str
    ports: str
    target: str
    rule: str
    sources: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureView:
    """All ways to this host's containers, and ``warnings`` about other people's rules, a line each."""

    ways: tuple[Exposure, ...]
    warnings: tuple[str, ...]


class ExposureService:
    """Answers ``netagent exposure``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def view(self) -> ExposureView:
        """Return what can be reached now."""
        look = await self._look()
        endpoints = self._context.snapshot().endpoints.values()
        ways = [way for endpoint in endpoints for way in look.ways_to(endpoint)]
        ways.sort(key=lambda way: (natural_key(way.container), way.reach, way.version, way.protocol, way.ports))
        return ExposureView(ways=tuple(ways), warnings=look.warnings())

    async def warnings(self) -> tuple[str, ...]:
        """Return only what other people's rules stop of netagent's own traffic."""
        return (await self._look()).warnings()

    async def _look(self) -> "_Look":
        snapshot = self._context.snapshot()
        rules = await self._context.kernel.foreign_rules()
        facts = await self._context.kernel.facts()
        return _Look(snapshot, rules, snapshot.host.interface or facts.default_device)


class _Look:
    """One look at a snapshot; ``uplink`` is the interface that leads outside, None if none is known."""

    def __init__(self, snapshot: Snapshot, rules: Rules, uplink: str | None) -> None:
        self._snapshot = snapshot
        self._rules = rules
        self._uplink = uplink

    def ways_to(self, endpoint: Endpoint) -> Iterator[Exposure]:
        network = self._snapshot.networks.get(endpoint.network_id)
        if network is None or not endpoint.in_kernel:
            return
        for mapping in endpoint.ports:
            yield from self._published(endpoint, network, mapping)
        yield from self._direct(endpoint, network)
        if network.icc:
            yield from self._within(endpoint, network)
        else:
            yield from self._linked(endpoint, network)

    def _published(self, endpoint: Endpoint, network: Network, mapping: PortMapping) -> Iterator[Exposure]:
        for name, group in publish.elements(replace(endpoint, ports=(mapping,)), routed=network.routed).items():
            for element in group:
                for port, target in publish.published_ports({name: frozenset({element})}).items():
                    is_local = port.address is not None and port.address.is_loopback
                    sources = tuple(str(source) for source in mapping.sources if source.version == port.version)
                    if mapping.sources and not sources:
                        continue
                    yield Exposure(
                        container=endpoint.container_name,
                        container_id=endpoint.container_id,
                        network=network.name,
                        reach=THIS_HOST if is_local else ANYWHERE,
                        version=port.version,
                        protocol=port.protocol,
                        address=str(port.address or ("0.0.0.0" if port.version == 4 else "::")),  # noqa: S104
                        ports=str(port.first) if port.first == port.last else f"{port.first}-{port.last}",
                        target=str(target),
                        rule=f"{_TABLE} {name} {{ {element} }}",
                        sources=sources,
                        obstacles=() if is_local else self._on_the_way_in(network, port, target),
                    )

    def _on_the_way_in(self, network: Network, port: HostPort, target: Target) -> tuple[Obstacle, ...]:
        arriving = Packet(
            hook="prerouting",
            version=port.version,
            protocol=port.protocol,
            iif=self._uplink,
            destination=port.address,
            port=port.first,
        )
        translated = replace(
            arriving,
            hook="forward",
            oif=bridge_name(network),
            destination=target.address,
            port=target.port,
            original_port=port.first,
        )
        own = (Obstacle(where=_INTERNAL, certain=True),) if network.internal else ()
        return own + self._rules.obstacles(arriving) + self._rules.obstacles(translated)

    def _direct(self, endpoint: Endpoint, network: Network) -> Iterator[Exposure]:
        """Yield the ways by the endpoint's own addresses: at its published ports, or at all."""
        bridge = bridge_name(network)
        for way in direct.ways(endpoint, network, bridge):
            coming = Packet(
                hook="forward",
                version=way.address.version,
                protocol=None if way.protocol == "any" else way.protocol,
                iif=way.interface or self._uplink,
                oif=bridge,
                destination=way.address,
            )
            own = (Obstacle(where=_INTERNAL, certain=True),) if network.internal else ()
            yield Exposure(
                container=endpoint.container_name,
                container_id=endpoint.container_id,
                network=network.name,
                reach=ANYWHERE,
                version=way.address.version,
                protocol=way.protocol,
                address=str(way.address),
                ports=way.ports,
                target=str(way.address),
                rule=f"{_TABLE} {way.opened}",
                sources=way.sources,
                obstacles=own + self._rules.obstacles(coming),
            )

    def _linked(self, endpoint: Endpoint, network: Network) -> Iterator[Exposure]:
        """Yield the ways from containers that are linked to the endpoint's, where others have none."""
        names = {str(a.address): e.container_name for e in self._snapshot.endpoints_in(network.id) for a in e.addresses}
        bridge = bridge_name(network)
        for set_name, group in link_elements(self._snapshot, endpoint, network).items():
            for element in group:
                source, target, protocol, ports = element.split(" . ")
                given = next((a.address for a in endpoint.addresses if str(a.address) == target), None)
                if given is None:
                    continue
                packet = Packet(
                    hook="forward",
                    version=given.version,
                    protocol=protocol,
                    iif=bridge,
                    oif=bridge,
                    source=parse_address(source),
                    destination=given,
                    port=int(ports.partition("-")[0]),
                )
                yield Exposure(
                    container=endpoint.container_name,
                    container_id=endpoint.container_id,
                    network=network.name,
                    reach=f"container {names.get(source, source)}",
                    version=given.version,
                    protocol=protocol,
                    address=target,
                    ports=ports,
                    target=str(Target(address=given, port=packet.port or 0)) if "-" not in ports else target,
                    rule=f"{_TABLE} {set_name} {{ {element} }}",
                    obstacles=self._rules.obstacles(packet),
                )

    def _within(self, endpoint: Endpoint, network: Network) -> Iterator[Exposure]:
        """Yield the ways from the endpoint's own network, whatever its port."""
        bridge, driver = bridge_name(network), driver_named(network.driver)
        host = self._snapshot.host
        device = driver.device(network, host)
        entries = driver.ways(network, host) or ((device,) if device else ())
        peers = tuple(sorted(peer.host.name for peer in peers_of(self._snapshot, network))) if entries else ()
        for given in endpoint.addresses:
            way = Exposure(
                container=endpoint.container_name,
                container_id=endpoint.container_id,
                network=network.name,
                reach=NETWORK,
                version=given.address.version,
                protocol="any",
                address=str(given.address),
                ports="any",
                target=str(given.address),
                rule=f"{_TABLE} paths {{ {bridge} . {bridge} }}",
                peers=peers,
            )
            for entry in entries if peers else ():
                is_tunnel = entry == device
                opened = f"paths {{ {entry} . {bridge} }}" if is_tunnel else f"remote{way.version} {{ * . {bridge} }}"
                coming = Packet(hook="forward", version=way.version, iif=entry, oif=bridge, destination=given.address)
                way = replace(way, rule=f"{_TABLE} {opened}", obstacles=way.obstacles + self._rules.obstacles(coming))
            yield way

    def warnings(self) -> tuple[str, ...]:
        """Return what other people's rules stop of netagent's own traffic, and what could not be looked into."""
        return tuple(dict.fromkeys(self._warnings()))

    def _warnings(self) -> Iterator[str]:
        yield from (f"not looked into: {what}" for what in self._rules.unread)
        for what, packet in chain(self._tunnels(), self._ways_out()):
            yield from (
                f"{what} is blocked by {obstacle.where}"
                for obstacle in self._rules.obstacles(packet)
                if obstacle.certain
            )

    def _tunnels(self) -> Iterable[tuple[str, Packet]]:
        """Yield what comes from other hosts in tunnels, one packet of each kind and family of the underlay."""
        for kind in sorted(tunnel_kinds(networks_here(self._snapshot), self._snapshot.host)):
            for address in self._snapshot.host.underlay:
                packet = Packet(hook="input", version=address.version, iif=self._uplink, destination=address)
                if kind == "vxlan":
                    yield "VXLAN from other hosts", replace(packet, protocol="udp", port=VXLAN_PORT)
                else:
                    yield "GRE from other hosts", replace(packet, protocol="gre")

    def _ways_out(self) -> Iterable[tuple[str, Packet]]:
        """Yield what containers send outside and within their network: a packet of each."""
        for network in networks_here(self._snapshot):
            bridge = bridge_name(network)
            for version in sorted({subnet.prefix.version for subnet in network.subnets}):
                inside = Packet(hook="forward", version=version, iif=bridge, oif=bridge, protocol="tcp")
                yield f"traffic between containers of network {network.name} (with br_netfilter)", inside
                if not network.internal and self._uplink is not None:
                    yield f"traffic from network {network.name} to the outside", replace(inside, oif=self._uplink)


def tunnel_kinds(networks: Iterable[Network], host: Host) -> frozenset[str]:
    """Return what kinds of tunnel packets these networks need on ``host``: "vxlan", "gre"."""
    drivers = ((network, driver_named(network.driver)) for network in networks)
    return frozenset(
        "gre" if driver.name == "gre" else "vxlan"
        for network, driver in drivers
        if driver.name == "gre" or driver.device(network, host) is not None
    )
