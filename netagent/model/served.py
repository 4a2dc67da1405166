"""Ports that a container serves, whether anybody reaches them by the host or not."""

from collections.abc import Iterable

from netagent.model.container import Container
from netagent.model.endpoint import Endpoint

ServedPort = tuple[int, str]
"""A container's port and its protocol."""


def served_ports(endpoint: Endpoint, container: Container | None) -> frozenset[ServedPort]:
    """Return the ports that are published of ``endpoint``, and those that its ``container`` said it exposes."""
    published = {(port, mapping.protocol) for mapping in endpoint.ports for port in mapping.container_ports}
    exposed = (text.split("/") for text in container.exposed) if container is not None else ()
    return frozenset(published | {(int(number), protocol) for number, protocol in exposed})


def port_runs(ports: Iterable[ServedPort]) -> list[tuple[int, int, str]]:
    """Return stretches of consecutive ports, as first, last and protocol."""
    runs: list[tuple[int, int, str]] = []
    for number, protocol in sorted(ports, key=lambda port: (port[1], port[0])):
        if runs and runs[-1][1:] == (number - 1, protocol):
            runs[-1] = (runs[-1][0], number, protocol)
        else:
            runs.append((number, number, protocol))
    return runs
