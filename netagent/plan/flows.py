"""Which connections must be forgotten when host ports come, go or lead elsewhere.

NAT is decided once per connection, so the rules alone do not change where an open one goes. Only elements that differ
are looked at, and neighbouring ports are one operation.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from netagent.firewall.publish import published_ports
from netagent.firewall.spoof import source_addresses
from netagent.model.address import Address
from netagent.plan.desired import HostPort, Ruleset, State
from netagent.plan.operation import FlushAddress, FlushPort, Operation, Plan


def flows(desired: Ruleset | None, observed: Ruleset | None, prune: bool) -> Iterator[Operation]:
    """Yield what must be forgotten when ``observed`` becomes ``desired``."""
    if desired is None:
        return
    present = observed.elements if observed else {}
    come = published_ports(_difference(desired.elements, present))
    yield from (FlushPort(port, target) for port, target in come.items())
    if not prune:
        return
    went = published_ports(_difference(present, desired.elements))
    # Where the container goes as well, what it answered covers what was translated to it.
    gone = _sources(observed) - _sources(desired)
    left = [port for port, target in went.items() if target.address not in gone]
    yield from (FlushPort(piece) for port in left for piece in _without(port, come))
    yield from (FlushAddress(address) for address in sorted(gone & {t.address for t in went.values()}, key=str))


def confirm_flows(desired: State) -> Plan:
    """Return the plan that forgets every connection to a host port which does not lead where the port does now.

    For the start: flushing comes after everything else, and what a crash kept from happening leaves no difference.
    """
    ports = published_ports(desired.ruleset.elements if desired.ruleset else {})
    return Plan.ordered(FlushPort(port, target) for port, target in ports.items())


def _difference(one: Mapping[str, frozenset[str]], other: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    return {name: elements - other.get(name, frozenset()) for name, elements in one.items()}


def _sources(ruleset: Ruleset | None) -> frozenset[Address]:
    """Return the addresses of the containers that a ruleset lets send."""
    return source_addresses(ruleset.elements) if ruleset else frozenset()


def _without(port: HostPort, taken: Iterable[HostPort]) -> Iterator[HostPort]:
    """Yield what is left of a range of ports when those that are published anew are taken out."""
    place = (port.version, port.protocol, port.address)
    first = port.first
    inside = [t for t in taken if (t.version, t.protocol, t.address) == place and t.first <= port.last]
    for other in sorted(inside, key=lambda other: other.first):
        if other.first > first:
            yield replace(port, first=first, last=other.first - 1)
        first = max(first, other.last + 1)
    if first <= port.last:
        yield replace(port, first=first)
