"""Addresses, routes, neighbours and forwarding entries: added in batches, deleted so that absence is no error.

Each function takes operations of one namespace and the route netlink of it. Those that add do all that can be done
before they raise the first refusal.
"""

import errno
from collections.abc import Callable, Sequence
from typing import TypeVar

from netagent.errors import NetagentError
from netagent.kernel import encode, ovs
from netagent.kernel.decode import RouteRecord
from netagent.kernel.netlink import Refusal, Request
from netagent.kernel.rtnl import Rtnl, failures_of, possible, raise_first, raise_one_of, rejected
from netagent.plan.desired import ROUTE_PROTOCOL, Route
from netagent.plan.operation import (
    AddAddress,
    AddFdb,
    AddNeighbour,
    AddRoute,
    DeleteAddress,
    DeleteFdb,
    DeleteNeighbour,
    DeleteRoute,
    Operation,
)

_GONE = (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL)
_O = TypeVar("_O", bound=Operation)


def add_addresses(rtnl: Rtnl, operations: Sequence[AddAddress]) -> None:
    """Add addresses; those that are there stay."""
    _add(rtnl, operations, lambda o: o.address.device, lambda o, index: encode.add_address(o.address, index))


def delete_addresses(rtnl: Rtnl, operations: Sequence[DeleteAddress]) -> None:
    """Delete addresses."""
    _delete(rtnl, operations, lambda o: o.address.device, lambda o, index: encode.delete_address(o.address, index))


def add_neighbours(rtnl: Rtnl, operations: Sequence[AddNeighbour]) -> None:
    """Add or replace permanent neighbour entries."""
    _add(rtnl, operations, lambda o: o.neighbour.device, lambda o, index: encode.add_neighbour(o.neighbour, index))


def delete_neighbours(rtnl: Rtnl, operations: Sequence[DeleteNeighbour]) -> None:
    """Delete neighbour entries."""
    _delete(
        rtnl, operations, lambda o: o.neighbour.device, lambda o, index: encode.delete_neighbour(o.neighbour, index)
    )


def add_fdb(rtnl: Rtnl, operations: Sequence[AddFdb]) -> None:
    """Add or replace forwarding entries."""
    ours = [o for o in operations if not ovs.is_port(o.entry.device)]
    try:
        _add(rtnl, ours, lambda o: o.entry.device, lambda o, index: encode.add_fdb(o.entry, index))
    finally:
        ovs.add_flows(o.entry for o in operations if ovs.is_port(o.entry.device))


def delete_fdb(rtnl: Rtnl, operations: Sequence[DeleteFdb]) -> None:
    """Delete forwarding entries."""
    ovs.delete_flows(o.entry for o in operations if ovs.is_port(o.entry.device))
    operations = [o for o in operations if not ovs.is_port(o.entry.device)]
    _delete(rtnl, operations, lambda o: o.entry.device, lambda o, index: encode.delete_fdb(o.entry, index))


def add_routes(rtnl: Rtnl, operations: Sequence[AddRoute]) -> None:
    """Add routes, replacing ours to the same destination.

    NLM_F_REPLACE alone would replace anybody's route (fib_table_insert, net/ipv4/fib_trie.c), so the first attempt
    is exclusive, and only what is seen to bear our protocol number is replaced in a second.
    """
    able, failures = possible(operations, lambda o: _index(rtnl, o, o.route.device))
    refusals = rtnl.transact([encode.add_route(o.route, index, ROUTE_PROTOCOL) for o, index in able])
    failures += failures_of([o for o, _ in able], refusals, allowed=(errno.EEXIST,))
    taken = [pair for pair, refusal in zip(able, refusals, strict=True) if refusal and refusal.errno == errno.EEXIST]
    if taken:
        failures += _replace_routes(rtnl, taken)
    raise_one_of(failures)


def _replace_routes(rtnl: Rtnl, taken: Sequence[tuple[AddRoute, int]]) -> list[NetagentError]:
    """Replace those that are ours, and return why others could not be."""
    ours = {record.destination: record for record in rtnl.routes(protocol=ROUTE_PROTOCOL)}
    outdated: list[tuple[AddRoute, int]] = []
    failures: list[NetagentError] = []
    for operation, index in taken:
        record = ours.get(operation.route.destination)
        if record is None:
            refusal = Refusal(errno.EEXIST, "another program has a route to this destination")
            failures.append(rejected(operation, refusal))
        elif not _is_same(record, operation.route, index):
            outdated.append((operation, index))
    requests = [encode.add_route(o.route, index, ROUTE_PROTOCOL, replace=True) for o, index in outdated]
    return failures + failures_of([operation for operation, _ in outdated], rtnl.transact(requests))


def _is_same(record: RouteRecord, route: Route, index: int) -> bool:
    return (record.index, record.gateway, record.source, record.onlink, record.encap, record.mtu) == (
        index,
        route.gateway,
        route.source,
        route.onlink,
        route.encap,
        route.mtu,
    )


def delete_routes(rtnl: Rtnl, operations: Sequence[DeleteRoute]) -> None:
    """Delete routes of ours."""
    _delete(
        rtnl,
        operations,
        lambda o: o.route.device,
        lambda o, index: encode.delete_route(o.route, index, ROUTE_PROTOCOL),
    )


def _index(rtnl: Rtnl, operation: Operation, device: str) -> int:
    index = rtnl.index(device)
    if index is None:
        raise rejected(operation, Refusal(errno.ENODEV, f"interface {device} does not exist"))
    return index


def _add(
    rtnl: Rtnl, operations: Sequence[_O], device: Callable[[_O], str], request: Callable[[_O, int], Request]
) -> None:
    able, failures = possible(operations, lambda o: request(o, _index(rtnl, o, device(o))))
    refusals = rtnl.transact([prepared for _, prepared in able])
    raise_one_of(failures + failures_of([operation for operation, _ in able], refusals))


def _delete(
    rtnl: Rtnl, operations: Sequence[_O], device: Callable[[_O], str], request: Callable[[_O, int], Request]
) -> None:
    indexed = [(operation, rtnl.index(device(operation))) for operation in operations]
    present = [(operation, index) for operation, index in indexed if index is not None]
    refusals = rtnl.transact([request(operation, index) for operation, index in present])
    raise_first([operation for operation, _ in present], refusals, allowed=_GONE)
