"""Links: containers that one container knows under names of its own, and by variables of its environment.

As Docker's ``--link``, on every kind of network: the two must share one. The name is answered by DNS and so follows a
container that restarts; the variables hold what was true at the start.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from netagent.model.container import Container
from netagent.model.endpoint import Endpoint
from netagent.model.ids import NetworkId
from netagent.model.resolver import Link
from netagent.model.served import ServedPort, port_runs, served_ports
from netagent.runtime.spec import ContainerSpec
from netagent.services.context import Context

_NOT_PASSED_ON = ("HOME", "PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """A link and where it leads now. ``ports`` are those that the target serves, ``environment`` its own."""

    link: Link
    endpoint: Endpoint
    ports: tuple[ServedPort, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def find_linked(context: Context, links: Iterable[Link], networks: Sequence[NetworkId]) -> Iterator[Linked]:
    """Yield those of ``links`` whose target is connected to one of ``networks`` now, here or on another host."""
    for link in links:
        endpoint = _find_endpoint(context, link.target, networks)
        if endpoint is None:
            continue
        container = context.journal.containers.get(endpoint.container_id)
        ports = tuple(sorted(served_ports(endpoint, container), key=_tcp_first))
        yield Linked(link=link, endpoint=endpoint, ports=ports, environment=_own(container))


def _find_endpoint(context: Context, name: str, networks: Sequence[NetworkId]) -> Endpoint | None:
    here = [e for e in context.journal.endpoints.values() if e.in_kernel]
    there = (e for access in context.stores.all for found in access.view.remote_endpoints.values() for e in found)
    for candidates in (here, there):
        by_network = {e.network_id: e for e in candidates if e.container_name == name}
        found = next((by_network[network] for network in networks if network in by_network), None)
        if found is not None:
            return found
    return None


def _own(container: Container | None) -> tuple[tuple[str, str], ...]:
    if container is None or not container.spec:
        return ()
    environment = msgspec.json.decode(container.spec, type=ContainerSpec).environment
    return tuple((name, value) for name, value in environment if name not in _NOT_PASSED_ON)


def render_environment(name: str, linked: Linked) -> Iterator[tuple[str, str]]:
    """Yield the variables that tell the container ``name`` of a link, as Docker's (docs.docker.com, "Legacy links")."""
    prefix = linked.link.alias.upper().replace("-", "_").replace(".", "_").replace("*", "_")
    address = linked.endpoint.addresses[0].address if linked.endpoint.addresses else None
    yield f"{prefix}_NAME", f"/{name}/{linked.link.alias}"
    yield from ((f"{prefix}_ENV_{key}", value) for key, value in linked.environment)
    if address is None:
        return
    host = f"[{address}]" if address.version == 6 else str(address)
    if linked.ports:
        number, protocol = linked.ports[0]
        yield f"{prefix}_PORT", f"{protocol}://{host}:{number}"
    for first, last, protocol in port_runs(linked.ports):
        if first < last:
            start = f"{prefix}_PORT_{first}_{protocol.upper()}"
            yield f"{start}_START", f"{protocol}://{host}:{first}"
            yield f"{start}_ADDR", str(address)
            yield f"{start}_PROTO", protocol
            yield f"{start}_PORT_START", str(first)
            yield f"{start}_END", f"{protocol}://{host}:{last}"
            yield f"{start}_PORT_END", str(last)
    for number, protocol in linked.ports:
        port = f"{prefix}_PORT_{number}_{protocol.upper()}"
        yield port, f"{protocol}://{host}:{number}"
        yield f"{port}_ADDR", str(address)
        yield f"{port}_PORT", str(number)
        yield f"{port}_PROTO", protocol


def _tcp_first(port: ServedPort) -> tuple[int, bool]:
    return port[0], port[1] != "tcp"
