"""Addresses, routes, neighbours and forwarding entries: added in batches, deleted so that absence is no error.

Each function takes operations of one namespace and the route netlink of it.
"""

import errno
from collections.abc import Callable, Sequence
from typing import TypeVar

from netagent.kernel import encode, ovs
from netagent.kernel.decode import RouteRecord
from netagent.kernel.netlink import Refusal, Request
from netagent.kernel.rtnl import Rtnl, raise_first, rejected
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
    ovs.add_flows(o.entry for o in operations if ovs.is_port(o.entry.device))
    operations = [o for o in operations if not ovs.is_port(o.entry.device)]
    _add(rtnl, operations, lambda o: o.entry.device, lambda o, index: encode.add_fdb(o.entry, index))


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
    indices = [_index(rtnl, operation, operation.route.device) for operation in operations]
    requests = [
        encode.add_route(operation.route, index, ROUTE_PROTOCOL)
        for operation, index in zip(operations, indices, strict=True)
    ]
    refusals = rtnl.transact(requests)
    raise_first(operations, refusals, allowed=(errno.EEXIST,))
    taken = [(o, i) for o, i, refusal in zip(operations, indices, refusals, strict=True) if refusal is not None]
    if taken:
        _replace_routes(rtnl, taken)


def _replace_routes(rtnl: Rtnl, taken: Sequence[tuple[AddRoute, int]]) -> None:
    ours = {record.destination: record for record in rtnl.routes(protocol=ROUTE_PROTOCOL)}
    outdated: list[tuple[AddRoute, int]] = []
    for operation, index in taken:
        record = ours.get(operation.route.destination)
        if record is None:
            raise rejected(operation, Refusal(errno.EEXIST, "another program has a route to this destination"))
        if not _is_same(record, operation.route, index):
            outdated.append((operation, index))
    requests = [encode.add_route(o.route, index, ROUTE_PROTOCOL, replace=True) for o, index in outdated]
    raise_first([operation for operation, _ in outdated], rtnl.transact(requests))


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
    requests = [request(operation, _index(rtnl, operation, device(operation))) for operation in operations]
    raise_first(operations, rtnl.transact(requests))


def _delete(
    rtnl: Rtnl, operations: Sequence[_O], device: Callable[[_O], str], request: Callable[[_O, int], Request]
) -> None:
    indexed = [(operation, rtnl.index(device(operation))) for operation in operations]
    present = [(operation, index) for operation, index in indexed if index is not None]
    refusals = rtnl.transact([request(operation, index) for operation, index in present])
    raise_first([operation for operation, _ in present], refusals, allowed=_GONE)
