"""The route netlink of one namespace: links by name, tables as lists, and refusals as our errors."""

import errno
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from netagent.errors import EnvironmentProblem, KernelRejected, NetagentError
from netagent.kernel import encode
from netagent.kernel.decode import (
    AddressRecord,
    LinkRecord,
    NeighbourRecord,
    RouteRecord,
    decode_address,
    decode_link,
    decode_neighbour,
    decode_nsid,
    decode_route,
)
from netagent.kernel.netlink import NetlinkSocket, Refusal, Request
from netagent.kernel.uapi import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE
from netagent.plan.operation import Operation

_O = TypeVar("_O", bound=Operation)
_T = TypeVar("_T")

_HINTS = {
    errno.EXFULL: "a Linux bridge takes 1,023 ports; use another network",
    errno.EOPNOTSUPP: "this kernel lacks the feature",
}


class Rtnl:
    """A route netlink socket with a memory of which name is which interface index.

    The memory holds for one plan: nobody else is expected to rename or replace our links while it is carried out.
    """

    def __init__(self) -> None:
        self._socket = NetlinkSocket()
        self._indices: dict[str, int] = {}

    @property
    def port(self) -> int:
        """The socket's netlink port."""
        return self._socket.port

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def forget(self, names: Iterable[str] | None = None) -> None:
        """Forget the indices of ``names``, or of all."""
        if names is None:
            self._indices.clear()
            return
        for name in names:
            self._indices.pop(name, None)

    def transact(self, requests: Sequence[Request]) -> list[Refusal | None]:
        """Send all ``requests``; return for each None or the kernel's refusal."""
        return self._socket.transact(requests)

    def link(self, name: str) -> LinkRecord | None:
        """Return the link called ``name``, or None."""
        record = self._get_link(encode.get_link(name))
        if record is not None:
            self._indices[name] = record.index
        return record

    def link_at(self, index: int) -> LinkRecord | None:
        """Return the link with this index, or None."""
        return self._get_link(encode.get_link_by_index(index))

    def index(self, name: str) -> int | None:
        """Return the index of the link called ``name``, or None."""
        known = self._indices.get(name)
        if known is None:
            record = self.link(name)
            known = record.index if record else None
        return known

    def nsid(self, namespace_fd: int) -> int | None:
        """Return the number by which this namespace knows the one behind ``namespace_fd``, or None."""
        return decode_nsid(self._socket.get(encode.get_nsid(namespace_fd)))

    def links(self) -> list[LinkRecord]:
        """Return all links."""
        messages = self._socket.dump(encode.get_links())
        return [decode_link(m.body) for m in messages if m.kind == RTM_NEWLINK]

    def links_in(self, group: int, *, is_free: bool = False) -> list[LinkRecord]:
        """Return the links of one group; with ``is_free`` those without a master alone, which costs much less."""
        mark = encode.link_group(group)
        messages = self._socket.dump(encode.get_links(is_free=is_free))
        if not messages:
            # Before Linux 5.16 nothing is free; where the filter is known the loopback device is.
            messages = self._socket.dump(encode.get_links())
        found = (decode_link(m.body) for m in messages if m.kind == RTM_NEWLINK and mark in bytes(m.body))
        return [record for record in found if record.group == group]

    def addresses(self, *, versions: Collection[int] = (4, 6)) -> list[AddressRecord]:
        """Return all addresses, of both families or only of those ``versions``."""
        messages = self._socket.dump(encode.get_addresses(*versions if len(versions) == 1 else ()))
        records = (decode_address(m.body) for m in messages if m.kind == RTM_NEWADDR)
        # A kernel without IPv6 answers with the addresses of all the families it has.
        return [record for record in records if record is not None and record.address.version in versions]

    def routes(self, *, protocol: int = 0, versions: Collection[int] = (4, 6)) -> list[RouteRecord]:
        """Return the unicast routes of the main table, of both families; only those of ``protocol`` if it is given."""
        found: list[RouteRecord] = []
        for version in versions:
            # A kernel without IPv6 answers with the routes of all the families it has.
            records = (
                decode_route(m.body)
                for m in self._socket.dump(encode.get_routes(version, protocol))
                if m.kind == RTM_NEWROUTE
            )
            found.extend(r for r in records if r is not None and r.destination.version == version)
        return found

    def neighbours(self, index: int, *, bridge: bool = False) -> list[NeighbourRecord]:
        """Return the neighbour entries of one device, or its forwarding entries (``bridge``)."""
        messages = self._socket.dump(encode.get_neighbours(index, bridge=bridge))
        return [decode_neighbour(m.body) for m in messages if m.kind == RTM_NEWNEIGH]

    def dump(self, request: Request, kind: int) -> list[memoryview]:
        """Return the bodies of all messages of one ``kind`` in the answer to a dump."""
        return [message.body for message in self._socket.dump(request) if message.kind == kind]

    def _get_link(self, request: Request) -> LinkRecord | None:
        try:
            return decode_link(self._socket.get(request))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise


def rejected(operation: Operation, refusal: Refusal) -> NetagentError:
    """Return the error that says who must act about a refusal."""
    if refusal.errno == errno.EPERM:
        return EnvironmentProblem(f"not permitted: {operation}", hint="the agent needs CAP_NET_ADMIN")
    return KernelRejected(str(operation), refusal.errno, refusal.text, hint=_HINTS.get(refusal.errno, ""))


def possible(operations: Iterable[_O], prepare: Callable[[_O], _T]) -> tuple[list[tuple[_O, _T]], list[NetagentError]]:
    """Return the operations that ``prepare`` does not refuse, each with what it returns, and the refusals.

    A batch is of many networks: what one of them lacks must not keep the others from theirs.
    """
    able: list[tuple[_O, _T]] = []
    failures: list[NetagentError] = []
    for operation in operations:
        try:
            able.append((operation, prepare(operation)))
        except NetagentError as failure:
            failures.append(failure)
    return able, failures


def failures_of(
    operations: Sequence[Operation], refusals: Sequence[Refusal | None], *, allowed: Iterable[int] = ()
) -> list[NetagentError]:
    """Return an error for each refusal whose errno is not among ``allowed``."""
    tolerated = frozenset(allowed)
    return [
        rejected(operation, refusal)
        for operation, refusal in zip(operations, refusals, strict=True)
        if refusal is not None and refusal.errno not in tolerated
    ]


def raise_first(
    operations: Sequence[Operation], refusals: Sequence[Refusal | None], *, allowed: Iterable[int] = ()
) -> None:
    """Raise for the first refusal whose errno is not among ``allowed``."""
    raise_one_of(failures_of(operations, refusals, allowed=allowed))


def raise_one_of(failures: Sequence[NetagentError]) -> None:
    """Raise the first failure, if there is any."""
    if failures:
        raise failures[0]
