"""Routing by source in a sandbox: a rule for an address, and a table that leads out of its own network."""

import errno
import struct
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from netagent.kernel.netlink import Refusal, Request, decode_attributes, encode_attribute
from netagent.kernel.rtnl import Rtnl, raise_first, rejected
from netagent.kernel.uapi import (
    FR_ACT_TO_TBL,
    FRA_DST,
    FRA_PROTOCOL,
    FRA_SRC,
    FRA_TABLE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_TABLE,
    RTM_DELRULE,
    RTM_GETRULE,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTN_UNICAST,
    RTNH_F_ONLINK,
)
from netagent.model.address import Address, Prefix
from netagent.plan.desired import ROUTE_PROTOCOL, SourceRoute
from netagent.plan.operation import AddSourceRoute, DeleteSourceRoute

_FAMILY = {4: 2, 6: 10}
_MESSAGE = struct.Struct("=BBBBBBBBI")
"""struct rtmsg, and struct fib_rule_hdr, which has the same shape: family, lengths, tos, table, …, type or action."""
_U32 = struct.Struct("=I")


def add_source_routes(rtnl: Rtnl, operations: Sequence[AddSourceRoute]) -> None:
    """Fill the tables, then add the rules; what is there stays."""
    for operation in operations:
        index = rtnl.index(operation.route.device)
        if index is None:
            raise rejected(operation, Refusal(errno.ENODEV, f"interface {operation.route.device} does not exist"))
        requests = [*_table(operation.route, index), _rule(operation.route, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL)]
        raise_first([operation] * len(requests), rtnl.transact(requests), allowed=(errno.EEXIST,))


def delete_source_routes(rtnl: Rtnl, operations: Sequence[DeleteSourceRoute]) -> None:
    """Delete the rules; absent ones are no error."""
    requests = [_rule(operation.route, RTM_DELRULE, 0) for operation in operations]
    raise_first(operations, rtnl.transact(requests), allowed=(errno.ENOENT, errno.ESRCH))


def source_rules(rtnl: Rtnl) -> frozenset[tuple[Address, Prefix | None, int]]:
    """Return our rules: from which address, to which prefix, which table."""
    found = set()
    for family in _FAMILY.values():
        request = Request(RTM_GETRULE, 0, _MESSAGE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        for body in rtnl.dump(request, RTM_NEWRULE):
            if body[0] != family:
                continue
            attributes = decode_attributes(body[_MESSAGE.size :])
            source, target, table = (attributes.get(number) for number in (FRA_SRC, FRA_DST, FRA_TABLE))
            if bytes(attributes.get(FRA_PROTOCOL, b"")) == bytes([ROUTE_PROTOCOL]) and source and table:
                to = ip_network((bytes(target), body[1])) if target else None
                found.add((ip_address(bytes(source)), to, int(_U32.unpack(table)[0])))
    return frozenset(found)


def _table(route: SourceRoute, index: int) -> list[Request]:
    """Return the routes of the table: IPv4 neighbours on the link, everything else by the gateway.

    IPv6 neighbours are reached by the gateway too, as in the main table.
    """
    family, version = _FAMILY[route.address.version], route.address.version
    common = encode_attribute(RTA_OIF, _U32.pack(index)) + encode_attribute(RTA_TABLE, _U32.pack(route.table))
    flags, nexthop = NLM_F_CREATE | NLM_F_REPLACE, RTNH_F_ONLINK if version == 6 else 0

    def request(length: int, scope: int, attributes: bytes) -> Request:
        head = _MESSAGE.pack(family, length, 0, 0, 0, ROUTE_PROTOCOL, scope, RTN_UNICAST, nexthop)
        return Request(RTM_NEWROUTE, flags, head + common + attributes)

    onlink = encode_attribute(RTA_DST, route.prefix.network_address.packed)
    default = request(0, RT_SCOPE_UNIVERSE, encode_attribute(RTA_GATEWAY, route.gateway.packed))
    return [request(route.prefix.prefixlen, RT_SCOPE_LINK, onlink), default] if version == 4 else [default]


def _rule(route: SourceRoute, kind: int, flags: int) -> Request:
    version, length = route.address.version, route.address.max_prefixlen
    target = b"" if route.to is None else encode_attribute(FRA_DST, route.to.network_address.packed)
    target_length = 0 if route.to is None else route.to.prefixlen
    head = _MESSAGE.pack(_FAMILY[version], target_length, length, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
    attributes = (
        encode_attribute(FRA_SRC, route.address.packed),
        target,
        encode_attribute(FRA_TABLE, _U32.pack(route.table)),
        encode_attribute(FRA_PROTOCOL, bytes([ROUTE_PROTOCOL])),
    )
    return Request(kind, flags, head + b"".join(attributes))
