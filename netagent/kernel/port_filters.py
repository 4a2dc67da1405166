"""Programs of classic BPF (tc's classifier ``bpf``) at the host's ends of veth pairs, known by their priority."""

import errno
import logging
import struct
from collections.abc import Iterable, Mapping
from typing import Final

from netagent.errors import KernelRejected
from netagent.firewall.iptables.neighbour_filter import Instruction, by_port, elements_of, program, targets_of
from netagent.firewall.spoof import PORT_PREFIX
from netagent.kernel.limits import MARK as REDIRECT_PRIORITY
from netagent.kernel.netlink import Refusal, Request, decode_attributes, encode_attribute, encode_nested
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.uapi import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTM_DELTFILTER,
    RTM_GETQDISC,
    RTM_GETTFILTER,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    TC_H_INGRESS,
    TCA_BPF_FLAG_ACT_DIRECT,
    TCA_BPF_FLAGS,
    TCA_BPF_OPS,
    TCA_BPF_OPS_LEN,
    TCA_KIND,
    TCA_OPTIONS,
)

_log = logging.getLogger("netagent.kernel")

PRIORITY: Final = REDIRECT_PRIORITY - 1
"""Before the redirect of limits, which takes every packet away."""
_UNSUPPORTED = (errno.ENOENT, errno.EOPNOTSUPP)
"""The refusals of a kernel without the classifier."""

_INGRESS_HANDLE = 0xFFFF0000
_HANDLE = 1
_IPV6 = 0xDD86
"""ETH_P_IPV6 (linux/if_ether.h) in network order, as the lower half of tcm_info."""
_TCMSG = struct.Struct("=BxxxiIII")
_INSTRUCTION = struct.Struct("=HBBI")
_NOTHING = memoryview(b"")


class PortFilters:
    """The programs by which ports say what their neighbour messages are about. For the worker thread only."""

    def __init__(self, rtnl: Rtnl) -> None:
        self._rtnl = rtnl
        self._is_supported = True

    def put(self, port: str, targets: frozenset[int]) -> None:
        """Let ``port`` speak of these targets alone, or of anything if there are none; one that is not there waits."""
        self._rtnl.forget([port])
        index = self._rtnl.index(port)
        if index is None:
            return
        if not targets:
            delete_filter(self._rtnl, index)
            return
        refusal = put_filter(self._rtnl, index, program(targets))
        if refusal is None:
            return
        if refusal.errno not in _UNSUPPORTED:
            raise KernelRejected(f"filter replace dev {port} bpf", refusal.errno, refusal.text)
        if self._is_supported:
            self._is_supported = False
            _log.warning("without CONFIG_NET_CLS_BPF in the kernel neighbour messages are not looked into")

    def replace(self, elements: Iterable[str]) -> None:
        """Let there be programs for ``elements`` of the set alone, where their ports are."""
        wanted = by_port(elements)
        for port in self._ports().values():
            if port not in wanted:
                self.put(port, frozenset())
        for port, targets in wanted.items():
            self.put(port, targets)

    def elements(self, wanted: Iterable[str] = ()) -> frozenset[str]:
        """Return the elements that are in place, and those of ``wanted`` that cannot be: their ports are not there."""
        if not self._is_supported:
            return frozenset(wanted)
        ports = self._ports()
        found = read_filters(self._rtnl)
        present = {ports[index]: targets_of(steps) or frozenset() for index, steps in found.items() if index in ports}
        names = frozenset(ports.values())
        waiting = (element for element in wanted if element.partition(" . ")[0] not in names)
        return frozenset(waiting).union(*(elements_of(port, targets) for port, targets in present.items()))

    def _ports(self) -> Mapping[int, str]:
        return {
            link.index: link.name
            for link in self._rtnl.links()
            if link.is_ours and not link.is_dying and link.name.startswith(PORT_PREFIX)
        }


def put_filter(rtnl: Rtnl, index: int, steps: tuple[Instruction, ...]) -> Refusal | None:
    """Let what arrives at an interface pass these ``steps`` from now on; return a refusal."""
    ingress = encode_attribute(TCA_KIND, b"ingress\0")
    add_queue = Request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, _tcmsg(index, _INGRESS_HANDLE, TC_H_INGRESS) + ingress)
    options = encode_nested(
        TCA_OPTIONS,
        encode_attribute(TCA_BPF_OPS_LEN, struct.pack("=H", len(steps))),
        encode_attribute(TCA_BPF_OPS, b"".join(_INSTRUCTION.pack(*step) for step in steps)),
        encode_attribute(TCA_BPF_FLAGS, struct.pack("=I", TCA_BPF_FLAG_ACT_DIRECT)),
    )
    place = _tcmsg(index, _HANDLE, _INGRESS_HANDLE, PRIORITY << 16 | _IPV6)
    add_filter = Request(
        RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, place + encode_attribute(TCA_KIND, b"bpf\0") + options
    )
    queue, refusal = rtnl.transact([add_queue, add_filter])
    return queue if queue is not None and queue.errno != errno.EEXIST else refusal


def delete_filter(rtnl: Rtnl, index: int) -> None:
    """Take the program of an interface away; an absent one is no error. The queue that it hung on stays, empty."""
    rtnl.transact([Request(RTM_DELTFILTER, 0, _tcmsg(index, 0, _INGRESS_HANDLE, PRIORITY << 16 | _IPV6))])


def read_filters(rtnl: Rtnl) -> Mapping[int, tuple[Instruction, ...]]:
    """Return the programs that there are at our priority, by index of the interface."""
    found: dict[int, tuple[Instruction, ...]] = {}
    for body in rtnl.dump(Request(RTM_GETQDISC, 0, _tcmsg(0)), RTM_NEWQDISC):
        _, index, handle, _, _ = _TCMSG.unpack_from(body)
        if handle != _INGRESS_HANDLE:
            continue
        for filter_body in rtnl.dump(Request(RTM_GETTFILTER, 0, _tcmsg(index, 0, _INGRESS_HANDLE)), RTM_NEWTFILTER):
            options = decode_attributes(decode_attributes(filter_body[_TCMSG.size :]).get(TCA_OPTIONS, _NOTHING))
            if _TCMSG.unpack_from(filter_body)[4] >> 16 == PRIORITY and TCA_BPF_OPS in options:
                found[index] = tuple(_INSTRUCTION.iter_unpack(options[TCA_BPF_OPS]))
    return found


def _tcmsg(index: int, handle: int = 0, parent: int = 0, info: int = 0) -> bytes:
    return _TCMSG.pack(0, index, handle, parent, info)
