"""Elements of our sets and maps by raw nfnetlink, a whole batch in one transaction. For the worker thread only.

libnftables reads all sets of the machine before it adds an element, and parses and prints text; for the few elements
of an attach that is most of the work. A transaction is what stands between NFNL_MSG_BATCH_BEGIN and
NFNL_MSG_BATCH_END: the kernel does all of it or nothing (nfnetlink_rcv_batch, net/netfilter/nfnetlink.c).

How a set's elements are encoded follows from its declaration, so only sets that were put in place or seen in place by
this program are known here; everything else goes through libnftables, as do tables, chains and rules.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from netagent.errors import KernelRejected
from netagent.kernel.encode_elements import ElementLayout, encode_lists, layout_of
from netagent.kernel.netlink import NetlinkSocket, Refusal, Request, encode_attribute
from netagent.kernel.nftables import FAMILIES, NFGENMSG, TABLE, split_name
from netagent.kernel.uapi import (
    NETLINK_NETFILTER,
    NFNL_MSG_BATCH_BEGIN,
    NFNL_MSG_BATCH_END,
    NFNL_SUBSYS_NFTABLES,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSETELEM,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
    NLA_F_NESTED,
    NLM_F_CREATE,
)
from netagent.plan.desired import ElementSet
from netagent.plan.operation import AddElements, DeleteElements

_LIST_BYTES = 1 << 15
_SEND_BYTES = 64 << 20
"""A transaction is one datagram: some 60 bytes an element, and a host may publish all its ports at once."""


class Change(NamedTuple):
    """Elements to add to one set, or to delete from it."""

    set_name: str
    elements: Iterable[str]
    is_addition: bool


class ElementWriter:
    """Adds and deletes elements of the sets it knows, in the namespace of the thread that made it."""

    def __init__(self) -> None:
        self._netfilter = NetlinkSocket(NETLINK_NETFILTER, send_bytes=_SEND_BYTES)
        self._layouts: Mapping[str, ElementLayout | None] = {}

    def close(self) -> None:
        """Close the socket."""
        self._netfilter.close()

    def learn(self, sets: Iterable[ElementSet]) -> None:
        """Take note of the sets that are in the tables."""
        self._layouts = {declared.name: layout_of(declared) for declared in sets}

    def add(self, operations: Sequence[AddElements]) -> bool:
        """Add all elements in one transaction; False if they are not for here, and nothing was done.

        One that is there with other data raises KernelRejected with EEXIST. Of several operations those before the
        refused one are done then.
        """
        outcome = self.commit([Change(o.set_name, o.elements, is_addition=True) for o in operations])
        if outcome is None:
            return False
        refusal = next(filter(None, outcome), None)
        if refusal is None:
            return True
        if len(operations) == 1:
            raise KernelRejected(str(operations[0]), refusal.errno, refusal.text)
        # Alone, the operation to blame is refused by itself, and those before it are done.
        return all(self.add([operation]) for operation in operations)

    def delete(self, operations: Sequence[DeleteElements]) -> bool:
        """Delete all elements in one transaction; False if they are not for here, or one of them is not there."""
        outcome = self.commit([Change(o.set_name, o.elements, is_addition=False) for o in operations])
        return outcome is not None and not any(outcome)

    def commit(self, changes: Sequence[Change]) -> list[Refusal | None] | None:
        """Make all ``changes`` in one transaction and return the kernel's refusals: if there is one, nothing was done.

        None if one of them is not for here.
        """
        requests: list[Request] = []
        # What the codec does not take, libnftables refuses in words that fit.
        with suppress(ValueError, OverflowError, OSError, struct.error):
            for change in changes:
                layout = self._layouts.get(change.set_name)
                if layout is None:
                    return None
                requests.extend(_requests(change, layout))
            return self._netfilter.transact_whole(_BEGIN, requests, _END) if requests else []
        return None


def _bound(kind: int) -> Request:
    """Return a message that begins or ends a batch: its resource id names the subsystem, in network order."""
    return Request(kind, 0, NFGENMSG.pack(0, 0, int.from_bytes(NFNL_SUBSYS_NFTABLES.to_bytes(2), "little")))


_BEGIN, _END = _bound(NFNL_MSG_BATCH_BEGIN), _bound(NFNL_MSG_BATCH_END)


def _requests(change: Change, layout: ElementLayout) -> Iterable[Request]:
    family, name = split_name(change.set_name)
    head = NFGENMSG.pack(FAMILIES[family], 0, 0)
    head += encode_attribute(NFTA_SET_ELEM_LIST_TABLE, TABLE.encode() + b"\0")
    head += encode_attribute(NFTA_SET_ELEM_LIST_SET, name.encode() + b"\0")
    message = NFT_MSG_NEWSETELEM if change.is_addition else NFT_MSG_DELSETELEM
    flags = NLM_F_CREATE if change.is_addition else 0
    for group in encode_lists(layout, change.elements, with_data=change.is_addition, limit=_LIST_BYTES):
        body = head + encode_attribute(NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, group)
        yield Request(NFNL_SUBSYS_NFTABLES << 8 | message, flags, body)
