"""Traffic control (tc) for limits: a token bucket at a device's root, and what arrives led through another device.

A shaper of ours is known by its handle, a redirect by the priority of its filter; whatever else somebody puts on our
devices is left alone, but for a root queue that a limit has to take the place of.
"""

import errno
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from netagent.kernel.decode import LinkRecord
from netagent.kernel.netlink import Refusal, Request, decode_attributes, encode_attribute, encode_nested
from netagent.kernel.rtnl import Rtnl, raise_first, rejected
from netagent.kernel.uapi import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTM_DELQDISC,
    RTM_DELTFILTER,
    RTM_GETQDISC,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TC_ACT_STOLEN,
    TC_H_INGRESS,
    TC_H_ROOT,
    TC_LINKLAYER_ETHERNET,
    TC_U32_TERMINAL,
    TCA_ACT_KIND,
    TCA_ACT_OPTIONS,
    TCA_EGRESS_REDIR,
    TCA_KIND,
    TCA_MIRRED_PARMS,
    TCA_OPTIONS,
    TCA_STATS2,
    TCA_STATS_QUEUE,
    TCA_TBF_BURST,
    TCA_TBF_PARMS,
    TCA_TBF_RATE64,
    TCA_U32_ACT,
    TCA_U32_SEL,
)
from netagent.plan.desired import Redirect, Shaper
from netagent.plan.operation import DeleteRedirect, DeleteShaper, SetRedirect, SetShaper

MARK: Final = 0x6E61
"""Ours: the major number of a shaper's handle and the priority of a redirect's filter."""

_HANDLE = MARK << 16
_INGRESS_HANDLE = 0xFFFF0000
_EVERY_PROTOCOL = 0x0300
"""ETH_P_ALL (linux/if_ether.h) in network order, as the lower half of tcm_info."""
_TICK_NS = 64
"""What the kernel counts a bucket in (PSCHED_SHIFT, include/net/pkt_sched.h)."""

_TCMSG = struct.Struct("=BxxxiIII")
_RATESPEC = struct.Struct("=BBHhHI")
_TBF = struct.Struct("=12s12sIII")
_QUEUE_STATS = struct.Struct("=IIIII")
_U32_SELECTOR = struct.Struct("=BBBxHHhhI")
_U32_KEY = struct.Struct("=IIii")
_MIRRED = struct.Struct("=IIiiiiI")
_NO_LIMIT = bytes(_RATESPEC.size)
_NOTHING = memoryview(b"")


def set_shapers(rtnl: Rtnl, operations: Sequence[SetShaper]) -> None:
    """Put the token buckets in place of whatever is at the devices' roots."""
    requests = [_shaper_request(_index(rtnl, o, o.shaper.device), o.shaper) for o in operations]
    raise_first(operations, rtnl.transact(requests))


def delete_shapers(rtnl: Rtnl, operations: Sequence[DeleteShaper]) -> None:
    """Take token buckets of ours away; absent ones are no error."""
    found = [(o, index) for o in operations if (index := rtnl.index(o.shaper.device)) is not None]
    requests = [Request(RTM_DELQDISC, 0, _tcmsg(index, _HANDLE, TC_H_ROOT)) for _, index in found]
    raise_first([o for o, _ in found], rtnl.transact(requests), allowed=_ABSENT)


def set_redirects(rtnl: Rtnl, operations: Sequence[SetRedirect]) -> None:
    """Lead what arrives at the devices through others, in place of an earlier redirect of ours."""
    for operation in operations:
        index = _index(rtnl, operation, operation.redirect.device)
        through = _index(rtnl, operation, operation.redirect.through)
        ingress, _, add = rtnl.transact([_add_ingress(index), _delete_filter(index), _add_filter(index, through)])
        if ingress is not None and ingress.errno != errno.EEXIST:
            raise rejected(operation, ingress)
        raise_first([operation], [add])


def delete_redirects(rtnl: Rtnl, operations: Sequence[DeleteRedirect]) -> None:
    """Take redirects of ours away, and the queue that they hang on if nothing else does; absent ones are no error."""
    for operation in operations:
        index = rtnl.index(operation.redirect.device)
        if index is None:
            continue
        raise_first([operation], rtnl.transact([_delete_filter(index)]), allowed=_ABSENT)
        if not any(rtnl.dump(_get_filters(index), RTM_NEWTFILTER)):
            rtnl.transact([Request(RTM_DELQDISC, 0, _tcmsg(index, _INGRESS_HANDLE, TC_H_INGRESS))])


def observe_limits(
    rtnl: Rtnl, ours: Iterable[LinkRecord], desired: Iterable[Shaper]
) -> tuple[frozenset[Shaper], frozenset[Redirect]]:
    """Return the shapers and redirects of ours on our links.

    The kernel rounds a bucket to its ticks; where that comes to the same the burst is the desired one's.
    """
    names = {record.index: record.name for record in ours}
    if not names:
        return frozenset(), frozenset()
    wanted = {shaper.device: shaper for shaper in desired}
    shapers: set[Shaper] = set()
    redirects: set[Redirect] = set()
    for body in rtnl.dump(_get_qdiscs(), RTM_NEWQDISC):
        _, index, handle, _, _ = _TCMSG.unpack_from(body)
        if index not in names:
            continue
        if handle == _INGRESS_HANDLE:
            redirects.update(_redirects(rtnl, index, names))
        elif handle == _HANDLE:
            shaper = _decode_shaper(names[index], decode_attributes(body[_TCMSG.size :]))
            shapers.add(_as_desired(shaper, wanted.get(shaper.device)))
    return frozenset(shapers), frozenset(redirects)


def read_drops(rtnl: Rtnl) -> Mapping[int, int]:
    """Return how many packets each shaper of ours has dropped, by the index of its device."""
    drops: dict[int, int] = {}
    for body in rtnl.dump(_get_qdiscs(), RTM_NEWQDISC):
        _, index, handle, _, _ = _TCMSG.unpack_from(body)
        if handle == _HANDLE:
            statistics = decode_attributes(decode_attributes(body[_TCMSG.size :])[TCA_STATS2])
            drops[index] = _QUEUE_STATS.unpack_from(statistics[TCA_STATS_QUEUE])[2]
    return drops


def is_about(body: memoryview) -> int:
    """Return the index of the interface that a tc notification is about."""
    index: int = _TCMSG.unpack_from(body)[1]
    return index


_ABSENT = (errno.ENOENT, errno.EINVAL, errno.ENODEV)
"""EINVAL: there is no ingress queue, or another root."""


def _index(rtnl: Rtnl, operation: SetShaper | SetRedirect, device: str) -> int:
    index = rtnl.index(device)
    if index is None:
        raise rejected(operation, Refusal(errno.ENODEV, f"interface {device} does not exist"))
    return index


def _tcmsg(index: int, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    return _TCMSG.pack(0, index, handle, parent, info)


def _kind(name: str) -> bytes:
    return encode_attribute(TCA_KIND, name.encode() + b"\0")


def _shaper_request(index: int, shaper: Shaper) -> Request:
    rate = _RATESPEC.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(shaper.rate, 0xFFFFFFFF))
    options = [
        encode_attribute(TCA_TBF_PARMS, _TBF.pack(rate, _NO_LIMIT, shaper.queue, 0, 0)),
        encode_attribute(TCA_TBF_BURST, struct.pack("=I", shaper.burst)),
        encode_attribute(TCA_TBF_RATE64, struct.pack("=Q", shaper.rate)),
    ]
    body = _tcmsg(index, _HANDLE, TC_H_ROOT) + _kind("tbf") + encode_nested(TCA_OPTIONS, *options)
    return Request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body)


def _add_ingress(index: int) -> Request:
    body = _tcmsg(index, _INGRESS_HANDLE, TC_H_INGRESS) + _kind("ingress")
    return Request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)


def _add_filter(index: int, through: int) -> Request:
    """Return the request for a filter that takes every packet and sends it out through another device."""
    mirred = _MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, through)
    action = encode_nested(
        1,
        encode_attribute(TCA_ACT_KIND, b"mirred\0"),
        encode_nested(TCA_ACT_OPTIONS, encode_attribute(TCA_MIRRED_PARMS, mirred)),
    )
    selector = _U32_SELECTOR.pack(TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _U32_KEY.pack(0, 0, 0, 0)
    options = encode_nested(TCA_OPTIONS, encode_attribute(TCA_U32_SEL, selector), encode_nested(TCA_U32_ACT, action))
    body = _tcmsg(index, 0, _INGRESS_HANDLE, MARK << 16 | _EVERY_PROTOCOL) + _kind("u32") + options
    return Request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body)


def _delete_filter(index: int) -> Request:
    """Return the request that deletes all filters of our priority."""
    return Request(RTM_DELTFILTER, 0, _tcmsg(index, 0, _INGRESS_HANDLE, MARK << 16 | _EVERY_PROTOCOL))


def _get_qdiscs() -> Request:
    return Request(RTM_GETQDISC, 0, _tcmsg(0))


def _get_filters(index: int) -> Request:
    return Request(RTM_GETTFILTER, 0, _tcmsg(index, 0, _INGRESS_HANDLE))


def _decode_shaper(device: str, attributes: Mapping[int, memoryview]) -> Shaper:
    options = decode_attributes(attributes.get(TCA_OPTIONS, _NOTHING))
    if TCA_TBF_PARMS not in options:
        return Shaper(device=device, rate=0, burst=0, queue=0)
    ratespec, _, queue, ticks, _ = _TBF.unpack_from(options[TCA_TBF_PARMS])
    rate = _RATESPEC.unpack(ratespec)[5]
    if TCA_TBF_RATE64 in options:
        (rate,) = struct.unpack_from("=Q", options[TCA_TBF_RATE64])
    return Shaper(device=device, rate=rate, burst=round(ticks * _TICK_NS * rate / 1e9), queue=queue)


def _as_desired(found: Shaper, wanted: Shaper | None) -> Shaper:
    if wanted is None or (found.rate, found.queue) != (wanted.rate, wanted.queue):
        return found
    rounding = 1 + found.rate * 2 * _TICK_NS / 1e9
    return wanted if abs(found.burst - wanted.burst) <= rounding else found


def _redirects(rtnl: Rtnl, index: int, names: Mapping[int, str]) -> Iterable[Redirect]:
    for body in rtnl.dump(_get_filters(index), RTM_NEWTFILTER):
        info = _TCMSG.unpack_from(body)[4]
        options = decode_attributes(decode_attributes(body[_TCMSG.size :]).get(TCA_OPTIONS, _NOTHING))
        actions = decode_attributes(options.get(TCA_U32_ACT, _NOTHING))
        for action in actions.values():
            inner = decode_attributes(decode_attributes(action).get(TCA_ACT_OPTIONS, _NOTHING))
            if info >> 16 == MARK and TCA_MIRRED_PARMS in inner:
                through = _MIRRED.unpack_from(inner[TCA_MIRRED_PARMS])[6]
                yield Redirect(device=names[index], through=names.get(through, ""))
