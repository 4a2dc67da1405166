"""Notices what others do to what is ours: a link set down or deleted, an address or route removed, a firewall changed.

A notification is only a reason to look. Our own changes are told apart by the netlink port (rtnetlink) or the thread
or process (nftables, iptables-nft) that made them, so that an attach does not set off a look at everything.
"""

import asyncio
import logging
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from netagent.firewall.marks import MARKED_CHAINS
from netagent.kernel.decode import LinkRecord, decode_address, decode_link, decode_neighbour, decode_route
from netagent.kernel.firewall import Firewall
from netagent.kernel.limits import is_about
from netagent.kernel.netlink import Message, NetlinkSocket, decode_attributes
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.uapi import (
    NETCONFA_FORWARDING,
    NETCONFA_IFINDEX,
    NETCONFA_IFINDEX_ALL,
    NETCONFA_PROXY_NEIGH,
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NFNLGRP_NFTABLES,
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELRULE,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWGEN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE,
    NFTA_GEN_PROC_PID,
    NFTA_RULE_CHAIN,
    NUD_NOARP,
    NUD_PERMANENT,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELQDISC,
    RTM_DELROUTE,
    RTM_DELTFILTER,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNETCONF,
    RTM_NEWQDISC,
    RTM_NEWROUTE,
    RTM_NEWTFILTER,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_TC,
)
from netagent.model.address import Address, Mac
from netagent.plan.desired import ROUTE_PROTOCOL
from netagent.plan.render import BRIDGE_LINK_LOCAL

_log = logging.getLogger("netagent.kernel")

_GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_TC,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
)
_TUNNELS = frozenset({"vxlan", "gretap", "ip6gretap", "openvswitch", "tun"})
"""Kinds of links whose neighbours are ours; the last two are the ports of Open vSwitch's datapaths."""
_TRAFFIC_CONTROL = frozenset({RTM_NEWQDISC, RTM_DELQDISC, RTM_NEWTFILTER, RTM_DELTFILTER})
_GATHER_S = 0.01
"""How long notifications wait to be read together: an attach makes some twenty, each of which would wake the loop."""
_AT_ONCE = 256
"""Datagrams that are read without a pause for others."""
_AF_BRIDGE = 7
"""linux/socket.h; Python has no name for it."""
_NFGENMSG_BYTES = 4
_NETCONFMSG_BYTES = 4
_ELEMENTS = (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM)
_STRUCTURE = (NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What a link of ours was like when it was heard of last."""

    kind: str
    up: bool
    mtu: int
    mac: Mac

    @classmethod
    def of(cls, link: LinkRecord) -> "_Known":
        return cls(kind=link.kind, up=link.up, mtu=link.mtu, mac=link.mac)


class Watch:
    """Two multicast sockets in the namespace of the thread that makes the watch, read by the event loop."""

    def __init__(
        self,
        own: Rtnl,
        firewall: Firewall,
        changed: Callable[[], None],
        surroundings: Callable[[], None] = lambda: None,
        uplinks: Callable[[], None] = lambda: None,
    ) -> None:
        self._own_port = own.port
        self._firewall = firewall
        self._changed = changed
        self._surroundings = surroundings
        self._uplinks = uplinks
        self._others_touched = False
        self._table_touched = False
        self._route = NetlinkSocket(NETLINK_ROUTE, groups=_GROUPS)
        self._netfilter = NetlinkSocket(NETLINK_NETFILTER, groups=(NFNLGRP_NFTABLES,))
        self._loop: asyncio.AbstractEventLoop | None = None
        # Read after the sockets are open: what changes meanwhile is then heard as well.
        links = own.links()
        self._ours = {link.index: _Known.of(link) for link in links if link.is_ours and not link.is_dying}
        self._dying: set[int] = set()
        self._without_bridge: set[int] = set()
        self._foreign_bridges = {link.index for link in links if link.kind == "bridge" and not link.is_ours}

    def start(self) -> None:
        """Begin to read, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._listen(self._route, self._concerns_route)
        self._listen(self._netfilter, self._concerns_table)

    def close(self) -> None:
        """Stop reading and close both sockets."""
        for netlink in (self._route, self._netfilter):
            if self._loop is not None:
                self._loop.remove_reader(netlink.fileno())
            netlink.close()
        self._loop = None

    def _listen(self, netlink: NetlinkSocket, concerns: Callable[[Message], bool]) -> None:
        if self._loop is not None:
            self._loop.add_reader(netlink.fileno(), self._gather, netlink, concerns)

    def _gather(self, netlink: NetlinkSocket, concerns: Callable[[Message], bool]) -> None:
        if self._loop is not None:
            self._loop.remove_reader(netlink.fileno())
            self._loop.call_later(_GATHER_S, self._read, netlink, concerns)

    def _read(self, netlink: NetlinkSocket, concerns: Callable[[Message], bool]) -> None:
        if self._loop is None:
            return
        try:
            # All are looked at: each says something of what is ours.
            concerned = [concerns(message) for message in _waiting(netlink)]
        except OSError as error:
            # ENOBUFS: notifications were lost, so anything may have changed.
            _log.info("kernel notifications were lost (%s)", error.strerror)
            self._surroundings()
            self._uplinks()
            concerned = [True]
        self._listen(netlink, concerns)
        if any(concerned):
            self._changed()

    def _concerns_route(self, message: Message) -> bool:
        if message.kind in (RTM_NEWLINK, RTM_DELLINK):
            # A bridge speaks of its ports as well (br_ifinfo_notify, net/bridge/br_netlink.c), without their aliases.
            return message.body[0] != _AF_BRIDGE and self._concerns_link(message)
        if message.sender == self._own_port:
            return False
        if message.kind in (RTM_NEWADDR, RTM_DELADDR):
            address = decode_address(message.body)
            is_ours = address is not None and address.index in self._ours
            # Every container's end of a veth pair on this host gets and loses a link-local one.
            if address is not None and not is_ours and not address.address.is_link_local:
                self._surroundings()
                self._uplinks()
            is_lost = message.kind == RTM_DELADDR and address is not None and not _is_the_kernels(address.address)
            return is_ours and is_lost
        if message.kind in (RTM_NEWROUTE, RTM_DELROUTE):
            route = decode_route(message.body)
            is_ours = route is not None and (route.protocol == ROUTE_PROTOCOL or route.index in self._ours)
            if route is not None and not is_ours and not route.destination.is_link_local:
                self._uplinks()
            is_lost = message.kind == RTM_DELROUTE and route is not None and route.protocol == ROUTE_PROTOCOL
            return is_lost and route is not None and route.index not in self._dying
        if message.kind in _TRAFFIC_CONTROL:
            return is_about(message.body) in self._ours
        if message.kind == RTM_NEWNETCONF:
            return self._concerns_setting(message)
        if message.kind == RTM_DELNEIGH:
            # On a tunnel device every entry is ours, but for those that the kernel makes for multicast (NUD_NOARP).
            entry = decode_neighbour(message.body)
            is_ours = bool(entry.state & NUD_PERMANENT) or not entry.state & NUD_NOARP
            known = self._ours.get(entry.index)
            return known is not None and known.kind in _TUNNELS and is_ours
        return False

    def _concerns_setting(self, message: Message) -> bool:
        """Tell whether forwarding or answering for others was switched off, on a link of ours or everywhere.

        Ours are only ever switched on, after a new link has told all its settings in one message.
        """
        settings = decode_attributes(message.body[_NETCONFMSG_BYTES:])
        index = _integer(settings.pop(NETCONFA_IFINDEX, b""))
        if len(settings) != 1 or index not in (NETCONFA_IFINDEX_ALL, *self._ours):
            return False
        ((kind, value),) = settings.items()
        return kind in (NETCONFA_FORWARDING, NETCONFA_PROXY_NEIGH) and not _integer(value)

    def _concerns_link(self, message: Message) -> bool:
        """Tell whether a link of ours was deleted, is down, has another MTU or MAC or no bridge; remember what is ours.

        What becomes of a link that is being deleted is reported as the kernel's doing; its group says that it is ours.
        """
        link = decode_link(message.body)
        is_home = self._is_home_for_ports(message.kind, link)
        known = self._ours.pop(link.index, None)
        if known is None and not link.is_ours:
            self._uplinks()
        self._dying.discard(link.index)
        self._without_bridge.discard(link.index)
        if is_home:
            return True
        if message.kind == RTM_DELLINK:
            return known is not None and not link.is_dying
        if link.is_ours and link.kind == "veth" and not (link.master or link.is_dying or link.is_half_made):
            self._without_bridge.add(link.index)
            self._ours[link.index] = _Known.of(link)
            return message.sender != self._own_port
        if link.is_ours and link.is_dying:
            self._dying.add(link.index)
        elif link.is_ours:
            self._ours[link.index] = now = _Known.of(link)
            # The kernel does not say who changed an MTU or a MAC. Ours are set before a link comes up, but for the rare
            # change of a whole network, where a look more does no harm.
            is_changed = known is not None and known.up and (known.mtu, known.mac) != (now.mtu, now.mac)
            return is_changed or (not (link.up or link.is_half_made) and message.sender != self._own_port)
        return False

    def _is_home_for_ports(self, kind: int, link: LinkRecord) -> bool:
        """Tell whether a bridge of somebody else's has come while a port of ours has none: it may have been there."""
        if kind == RTM_DELLINK:
            self._foreign_bridges.discard(link.index)
            return False
        if link.kind != "bridge" or link.is_ours or link.index in self._foreign_bridges:
            return False
        self._foreign_bridges.add(link.index)
        return bool(self._without_bridge)

    def _concerns_table(self, message: Message) -> bool:
        """Tell at the end of a transaction whether it touched what is ours and was not ours."""
        if message.kind & 0xFF in _ELEMENTS and self._table_touched:
            # A thousand ports are as many messages, and the transaction is known to touch what is ours.
            return False
        attributes = decode_attributes(message.body[_NFGENMSG_BYTES:])
        if message.kind & 0xFF != NFT_MSG_NEWGEN:
            kind, family = message.kind & 0xFF, message.body[0]
            is_ours = self._firewall.concerns(kind, family, attributes)
            self._table_touched |= is_ours
            self._others_touched |= not is_ours and _concerns_marks(kind, attributes)
            return False
        touched, self._table_touched = self._table_touched, False
        others_touched, self._others_touched = self._others_touched, False
        process = attributes.get(NFTA_GEN_PROC_PID)
        is_own = process is not None and self._firewall.is_own(struct.unpack("!I", process)[0])
        if others_touched and not is_own:
            self._surroundings()
        return touched and not is_own


def _waiting(netlink: NetlinkSocket) -> Iterator[Message]:
    for _ in range(_AT_ONCE):
        messages = netlink.receive_notifications()
        if not messages:
            return
        yield from messages


def _is_the_kernels(address: Address) -> bool:
    """Tell whether the kernel makes such an address itself, and takes it back, as when a link's MAC is another one."""
    return address.version == 6 and address.is_link_local and address != BRIDGE_LINK_LOCAL


def _concerns_marks(kind: int, attributes: Mapping[int, memoryview | bytes]) -> bool:
    """Tell whether a change of another table may be one of a place where our marks are, or ought to be."""
    if kind in _STRUCTURE:
        return True
    chain = bytes(attributes.get(NFTA_RULE_CHAIN, b"")).rstrip(b"\0").decode(errors="replace")
    return kind in (NFT_MSG_NEWRULE, NFT_MSG_DELRULE) and chain in MARKED_CHAINS


def _integer(value: memoryview | bytes) -> int:
    return int.from_bytes(value, sys.byteorder, signed=True)
