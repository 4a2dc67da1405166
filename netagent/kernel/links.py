"""Links: creating, changing and deleting them, and the far ends of veth pairs in their sandboxes."""

import errno
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from netagent import failpoint
from netagent.errors import Conflict, EnvironmentProblem, InvalidRequest, NetagentError, NotFound
from netagent.kernel import checksums, encode, ovs
from netagent.kernel.decode import LinkRecord
from netagent.kernel.netlink import Refusal, Request
from netagent.kernel.rtnl import Rtnl, failures_of, possible, raise_first, raise_one_of, rejected
from netagent.kernel.sandboxes import Sandboxes
from netagent.kernel.sysctl import write_sysctl
from netagent.plan.desired import LINK_PREFIX, Ifb, Link, OvsGre, Veth
from netagent.plan.operation import AddLink, DeleteLink, SetLink

_log = logging.getLogger("netagent.kernel")

UNMARKED = "kernel.AddLink.unmarked"
"""The crash point at which links exist without their alias."""


def add_links(
    host: Rtnl, sandboxes: Sandboxes, operations: Sequence[AddLink], guard: Callable[[Iterable[str]], None]
) -> None:
    """Create the links, let ``guard`` see to those that are ports of containers, mark them and bring both ends up.

    A name that is taken raises KernelRejected with EEXIST; one taken in the sandbox raises Conflict. Of a link that
    fails nothing stays behind.
    """
    switched = [operation for operation in operations if isinstance(operation.link.kind, OvsGre)]
    able, failures = possible(
        (operation for operation in operations if operation not in switched),
        lambda operation: _creation(host, sandboxes, operation),
    )
    refusals = host.transact([request for _, request in able])
    host.forget(operation.link.name for operation, _ in able)
    failpoint.reach(UNMARKED)
    failures += [
        _creation_failure(host, operation, refusal)
        for (operation, _), refusal in zip(able, refusals, strict=True)
        if refusal is not None
    ]
    made = [operation for (operation, _), refusal in zip(able, refusals, strict=True) if refusal is None]
    for operation in made:
        _keep_ipv6_off(operation.link)
    guard(operation.link.name for operation in made if isinstance(operation.link.kind, Veth))
    settings = [encode.set_link(o.link, master_index=_master_index(host, o)) for o in made]
    for operation, refusal in zip(made, host.transact(settings), strict=True):
        try:
            if refusal is not None:
                raise rejected(operation, refusal)
            _set_offload(operation)
            _bring_up_inside(sandboxes, operation)
            _settle_carrier(host, operation)
        except NetagentError as failure:
            _take_back(host, operation)
            failures.append(failure)
    # Last: Open vSwitch is another program, which may not be there.
    failures += possible(switched, lambda operation: _add_switched(host, operation))[1]
    raise_one_of(failures)


def _add_switched(host: Rtnl, operation: AddLink) -> None:
    """Let Open vSwitch make a link, mark it and bring it up. One that is there must be ours to it."""
    name = operation.link.name
    host.forget([name])
    if host.link(name) is not None and name not in ovs.marked():
        raise rejected(operation, Refusal(errno.EEXIST, "an interface of this name is not netagent's"))
    _put_switched(operation.link)
    host.forget([name])
    failpoint.reach(UNMARKED)
    raise_first([operation], host.transact([encode.set_link(operation.link, master_index=0)]))
    _set_offload(operation)


def delete_unmarked_switched(host: Rtnl) -> None:
    """Delete links that Open vSwitch has for us and the kernel does not know as ours: a crash, or its restart."""
    marked = ovs.marked()
    if not marked:
        return
    left = marked - {record.name for record in host.links() if record.is_ours}
    if left:
        ovs.delete_bridges(left)


def _put_switched(link: Link) -> None:
    if isinstance(link.kind, OvsGre):
        ovs.put_bridge(link, link.kind)


def _keep_ipv6_off(link: Link) -> None:
    """Give a bridge's port no IPv6 of its own before it comes up; what comes in there is the bridge's anyhow.

    Its link-local address and routes would be one more in lists that the kernel goes through whenever a link comes or
    goes (fib6_add_rt2node and fib6_ifdown, net/ipv6): with 1,000 ports that is most of what a link costs.
    """
    if not isinstance(link.kind, Veth | Ifb):
        return
    try:
        write_sysctl(("net", "ipv6", "conf", link.name, "disable_ipv6"), "1")
    except EnvironmentProblem as refusal:
        _log.debug("%s; the link works all the same", refusal)


def _settle_carrier(host: Rtnl, operation: AddLink) -> None:
    """See to it that a bridge forwards on a new port, and sends by itself, from now on.

    Both wait for the kernel's link watch, which a worker runs a moment later, or much later on a busy machine; a
    container's first packets would be lost. Asking for a link does that work at once (linkwatch_sync_dev in
    rtnl_getlink, net/core/rtnetlink.c; since Linux 6.8). The port comes first: a bridge without any has no carrier,
    and what the host sends through it, ARP replies too, is dropped. The far end is asked for when it gets its address.
    """
    if isinstance(operation.link.kind, Veth):
        host.link(operation.link.name)
        if operation.link.master is not None:
            host.link(operation.link.master)


def set_links(host: Rtnl, sandboxes: Sandboxes, operations: Sequence[SetLink]) -> None:
    """Bring existing links of ours to what the operations say; MTU and up flag of a veth pair at both ends."""
    able, failures = possible(operations, lambda operation: _settings(host, sandboxes, operation))
    owners = [operation for operation, steps in able for _ in steps]
    refusals = host.transact([step for _, steps in able for step in steps])
    raise_one_of(failures + failures_of(owners, refusals))


def _settings(host: Rtnl, sandboxes: Sandboxes, operation: SetLink) -> list[Request]:
    """Return what brings the host's end of a link to what it should be; what is done elsewhere is done here."""
    record = host.link(operation.link.name)
    if record is None:
        raise rejected(operation, Refusal(errno.ENODEV, "no such interface"))
    if not record.is_ours:
        raise rejected(operation, Refusal(errno.EEXIST, "an interface of this name is not netagent's"))
    _put_switched(operation.link)
    master_index = _master_index(host, operation)
    _set_inside(host, sandboxes, operation, record)
    _set_offload(operation)
    steps = [encode.set_link(_with_new_mac(operation.link, record), master_index=master_index)]
    if record.master != master_index:
        # The settings of a bridge's port are refused while the link is none.
        steps.insert(0, encode.enslave(record.index, master_index))
    return steps


def _with_new_mac(link: Link, record: LinkRecord) -> Link:
    """Leave out a MAC that the link has: setting it forgets all neighbours (neigh_changeaddr, net/core/neighbour.c)."""
    return replace(link, mac=None) if link.mac == record.mac else link


def _set_offload(operation: AddLink | SetLink) -> None:
    if operation.link.offload is None:
        return
    try:
        checksums.set_offload(operation.link.name, on=operation.link.offload)
    except OSError as error:
        raise rejected(operation, Refusal(error.errno or errno.EIO, "its checksum offload cannot be set")) from error


def delete_links(host: Rtnl, sandboxes: Sandboxes, operations: Sequence[DeleteLink]) -> bool:
    """Delete links of ours; absent ones are no error and others' are left alone.

    Bridges and tunnels are deleted at once. Deleting a veth pair or an ifb takes 16 to 20 ms (RCU), so it is only made
    useless here: its container's end down and renamed, its host's end down, out of the bridge and renamed. The group,
    which each link enters first, tells the reaper what to delete, and everybody that what happens to the link is meant.
    Return whether there is work for the reaper.
    """
    requests: list[Request] = []
    owners: list[DeleteLink] = []
    switched: list[str] = []
    is_for_reaper = False
    for operation in operations:
        record = host.link(operation.link.name)
        if record is None:
            continue
        if not record.is_ours:
            _log.warning("%s: not done, the interface is not netagent's", operation)
            continue
        steps = [encode.doom(record.index, operation.link.alias), encode.set_up(record.index, up=False)]
        if record.kind in ("veth", "ifb"):
            _disable_inside(host, sandboxes, operation.link, record)
            steps.append(encode.retire(record.index, _retired_name(record.index)))
            is_for_reaper = True
        elif ovs.is_port(record.name):
            switched.append(record.name)
        else:
            steps.append(encode.delete_link(record.index))
        requests.extend(steps)
        owners.extend([operation] * len(steps))
    host.forget(operation.link.name for operation in operations)
    raise_first(owners, host.transact(requests), allowed=(errno.ENODEV,))
    if switched:
        ovs.delete_bridges(switched)
    return is_for_reaper


def _retired_name(index: int) -> str:
    """Return a name that no other retired link of the namespace has; an index is used once at a time."""
    return f"{LINK_PREFIX}-{index:x}"


def _creation(host: Rtnl, sandboxes: Sandboxes, operation: AddLink) -> Request:
    master_index = _master_index(host, operation)
    kind = operation.link.kind
    if not isinstance(kind, Veth) or kind.is_given_away:
        return encode.create_link(operation.link, master_index=master_index)
    sandbox = sandboxes.open(kind.sandbox, kind.sandbox_inode)
    return encode.create_link(operation.link, master_index=master_index, sandbox_fd=sandbox.namespace.fd)


def _master_index(host: Rtnl, operation: AddLink | SetLink) -> int:
    master = operation.link.master
    if master is None:
        return 0
    index = host.index(master)
    if index is None:
        raise rejected(operation, Refusal(errno.ENODEV, f"its master {master} does not exist"))
    return index


def _creation_failure(host: Rtnl, operation: AddLink, refusal: Refusal) -> NetagentError:
    kind = operation.link.kind
    if refusal.errno == errno.EEXIST and isinstance(kind, Veth) and host.link(operation.link.name) is None:
        return Conflict(
            f"interface {kind.interface} already exists in network namespace {kind.sandbox}",
            hint="choose another interface name or remove it there",
            interface=kind.interface,
        )
    return rejected(operation, refusal)


def _bring_up_inside(sandboxes: Sandboxes, operation: AddLink) -> None:
    kind = operation.link.kind
    if not isinstance(kind, Veth) or kind.is_given_away:
        return
    inside = sandboxes.open(kind.sandbox).rtnl
    index = inside.index(kind.interface)
    if index is None:
        raise rejected(operation, Refusal(errno.ENODEV, f"{kind.interface} is gone from {kind.sandbox}"))
    requests = [encode.set_up(encode.LOOPBACK_INDEX), encode.set_up(index)]
    raise_first([operation] * len(requests), inside.transact(requests))


def _take_back(host: Rtnl, operation: AddLink) -> None:
    index = host.index(operation.link.name)
    if index is not None:
        host.transact([encode.delete_link(index)])
        host.forget([operation.link.name])


def _set_inside(host: Rtnl, sandboxes: Sandboxes, operation: SetLink, record: LinkRecord) -> None:
    far_end = _far_end(host, sandboxes, operation.link, record)
    if far_end is not None:
        inside, peer = far_end
        requests = [encode.set_mtu(peer.index, operation.link.mtu), encode.set_up(peer.index)]
        raise_first([operation] * len(requests), inside.transact(requests))


def _disable_inside(host: Rtnl, sandboxes: Sandboxes, link: Link, record: LinkRecord) -> None:
    """Bring the container's end down and free its name. Whatever fails here ends with the pair anyhow."""
    far_end = _far_end(host, sandboxes, link, record)
    if far_end is None:
        return
    inside, peer = far_end
    inside.forget([peer.name])
    for refusal in inside.transact(
        [encode.set_up(peer.index, up=False), encode.rename(peer.index, _retired_name(peer.index))]
    ):
        if refusal is not None:
            _log.warning("link delete %s: its end in %s: %s", link.name, link.kind, refusal.text)


def _far_end(host: Rtnl, sandboxes: Sandboxes, link: Link, record: LinkRecord) -> tuple[Rtnl, LinkRecord] | None:
    """Return the far end of the veth ``record``, None unless it is in the sandbox that ``link`` names.

    The host's link says by number in which namespace its peer is, so a namespace that took over the sandbox's path
    is told apart even where its inode was never recorded.
    """
    kind = link.kind
    if not isinstance(kind, Veth) or kind.is_given_away or record.peer_nsid is None:
        return None
    try:
        sandbox = sandboxes.open(kind.sandbox)
    except (NotFound, InvalidRequest):
        return None
    if host.nsid(sandbox.namespace.fd) != record.peer_nsid:
        return None
    peer = sandbox.rtnl.link_at(record.peer)
    return None if peer is None else (sandbox.rtnl, peer)
