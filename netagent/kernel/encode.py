"""Plan values into rtnetlink requests. Pure; interfaces and namespaces come as the numbers the kernel wants."""

import struct
from typing import Final, assert_never

from netagent.errors import Bug
from netagent.kernel.netlink import Request, encode_attribute, encode_nested
from netagent.kernel.uapi import (
    BR_BOOLOPT_NO_LL_LEARN,
    IFA_ADDRESS,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_FLAGS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_BR_FORWARD_DELAY,
    IFLA_BR_MCAST_SNOOPING,
    IFLA_BR_MULTI_BOOLOPT,
    IFLA_BR_STP_STATE,
    IFLA_BRPORT_MODE,
    IFLA_EXT_MASK,
    IFLA_GRE_COLLECT_METADATA,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_NET_NS_FD,
    IFLA_VXLAN_ID,
    IFLA_VXLAN_LEARNING,
    IFLA_VXLAN_LOCAL,
    IFLA_VXLAN_LOCAL6,
    IFLA_VXLAN_PORT,
    IFLA_VXLAN_TTL,
    LWTUNNEL_ENCAP_IP,
    LWTUNNEL_ENCAP_IP6,
    LWTUNNEL_IP_DST,
    LWTUNNEL_IP_FLAGS,
    LWTUNNEL_IP_ID,
    LWTUNNEL_IP_SRC,
    LWTUNNEL_IP_TTL,
    NDA_DST,
    NDA_IFINDEX,
    NDA_LLADDR,
    NETNSA_FD,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NTF_SELF,
    NUD_NOARP,
    NUD_PERMANENT,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_ENCAP,
    RTA_ENCAP_TYPE,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_VIA,
    RTAX_LOCK,
    RTAX_MTU,
    RTEXT_FILTER_SKIP_STATS,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETNEIGH,
    RTM_GETNSID,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_SETLINK,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    TUNNEL_KEY,
    VETH_INFO_PEER,
)
from netagent.model.address import Address, Mac
from netagent.plan.desired import (
    Bridge,
    Encap,
    FdbEntry,
    Gretap,
    Ifb,
    InterfaceAddress,
    Link,
    Neighbour,
    OvsGre,
    Route,
    Veth,
    Vxlan,
)

GROUP_MAKING: Final = 0x6E6D
"""The link group in which a link of ours is born. IFLA_IFALIAS is not read on creation (rtnl_create_link,
net/core/rtnetlink.c), IFLA_GROUP is: a link in this group without an alias is ours, left half made by a crash."""
GROUP_DYING: Final = 0x6E61
"""The link group whose members are to be deleted together, in the background."""
LOOPBACK_INDEX: Final = 1
"""The loopback device is the first of every namespace (LOOPBACK_IFINDEX, include/net/flow.h)."""

_AF_UNSPEC, _AF_INET, _AF_BRIDGE, _AF_INET6 = 0, 2, 7, 10
_FAMILY = {4: _AF_INET, 6: _AF_INET6}
_TUNNEL_TTL = 64
_GRETAP = {4: "gretap", 6: "ip6gretap"}
_ENCAP = {4: LWTUNNEL_ENCAP_IP, 6: LWTUNNEL_ENCAP_IP6}

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_BOOLOPT = struct.Struct("=II")
_U16_BIG = struct.Struct("!H")
_U64_BIG = struct.Struct("!Q")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")


def encode_mac(mac: Mac) -> bytes:
    """Return the six octets of ``mac``."""
    return bytes.fromhex(mac.replace(":", ""))


def _u32(kind: int, value: int) -> bytes:
    return encode_attribute(kind, _U32.pack(value))


def _text(kind: int, text: str) -> bytes:
    return encode_attribute(kind, text.encode() + b"\0")


def _ifinfomsg(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFOMSG.pack(_AF_UNSPEC, 0, index, flags, change)


# Links


def create_link(link: Link, *, master_index: int = 0, sandbox_fd: int = -1) -> Request:
    """Create ``link``, down and without alias, in the group GROUP_MAKING; for a veth with its peer in the sandbox.

    The master is given here, so that the kernel takes the link back if the bridge refuses it.
    """
    attributes = [_text(IFLA_IFNAME, link.name), _u32(IFLA_GROUP, GROUP_MAKING), _link_info(link, sandbox_fd)]
    if link.mac is not None:
        attributes.append(encode_attribute(IFLA_ADDRESS, encode_mac(link.mac)))
    # An MTU given when a bridge is created does not count as the user's: br_mtu_auto_adjust (net/bridge/br_if.c)
    # changes it with every port. Only a later change of it counts (br_change_mtu).
    if not isinstance(link.kind, Bridge):
        attributes.append(_u32(IFLA_MTU, link.mtu))
    if master_index:
        attributes.append(_u32(IFLA_MASTER, master_index))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _ifinfomsg() + b"".join(attributes))


def _link_info(link: Link, sandbox_fd: int) -> bytes:
    match link.kind:
        case Bridge() as kind:
            name, data = "bridge", _bridge_data(kind)
        case Vxlan() as kind:
            name, data = "vxlan", _vxlan_data(kind)
        case Gretap() as kind:
            name, data = _GRETAP[kind.version], encode_attribute(IFLA_GRE_COLLECT_METADATA, b"")
        case OvsGre():
            raise Bug(f"link {link.name} is made by Open vSwitch, not by rtnetlink")
        case Veth() as kind:
            name, data = "veth", _veth_data(kind, link.mtu, sandbox_fd)
        case Ifb():
            name, data = "ifb", b""
        case _:
            assert_never(link.kind)
    return encode_nested(IFLA_LINKINFO, _text(IFLA_INFO_KIND, name), encode_nested(IFLA_INFO_DATA, data))


def _bridge_data(kind: Bridge) -> bytes:
    return (
        _u32(IFLA_BR_STP_STATE, 0)
        + _u32(IFLA_BR_FORWARD_DELAY, 0)
        # Without a querier a snooping bridge floods multicast all the same (br_multicast_querier_exists), so the
        # group tables it keeps per port buy nothing.
        + encode_attribute(IFLA_BR_MCAST_SNOOPING, b"\0")
        + _bridge_options(kind)
    )


def _bridge_options(kind: Bridge) -> bytes:
    """Return the bridge's own switches (struct br_boolopt_multi, linux/if_bridge.h): values, and which are meant."""
    meant = 1 << BR_BOOLOPT_NO_LL_LEARN
    return encode_attribute(IFLA_BR_MULTI_BOOLOPT, _BOOLOPT.pack(0 if kind.learns_from_groups else meant, meant))


def _vxlan_data(kind: Vxlan) -> bytes:
    local = IFLA_VXLAN_LOCAL if kind.local.version == 4 else IFLA_VXLAN_LOCAL6
    return (
        _u32(IFLA_VXLAN_ID, kind.vni)
        + encode_attribute(local, kind.local.packed)
        + encode_attribute(IFLA_VXLAN_PORT, _U16_BIG.pack(kind.port))
        + encode_attribute(IFLA_VXLAN_LEARNING, b"\0")
        + encode_attribute(IFLA_VXLAN_TTL, bytes([_TUNNEL_TTL]))
    )


def _veth_data(kind: Veth, mtu: int, sandbox_fd: int) -> bytes:
    peer = (
        _ifinfomsg()
        + _text(IFLA_IFNAME, kind.interface)
        + encode_attribute(IFLA_ADDRESS, encode_mac(kind.peer_mac))
        + _u32(IFLA_MTU, mtu)
        + (b"" if kind.is_given_away else _u32(IFLA_NET_NS_FD, sandbox_fd))
    )
    return encode_attribute(VETH_INFO_PEER, peer)


def set_link(link: Link, *, master_index: int) -> Request:
    """Give the link of that name all its settings, its mark among them, and bring it up."""
    attributes = [
        _text(IFLA_IFNAME, link.name),
        _text(IFLA_IFALIAS, link.alias),
        _u32(IFLA_GROUP, 0),
        _u32(IFLA_MTU, link.mtu),
        _u32(IFLA_MASTER, master_index),
    ]
    if link.mac is not None:
        attributes.append(encode_attribute(IFLA_ADDRESS, encode_mac(link.mac)))
    if isinstance(link.kind, Veth) and link.master is not None:
        mode = encode_attribute(IFLA_BRPORT_MODE, bytes([link.kind.hairpin]))
        port = encode_nested(IFLA_INFO_SLAVE_DATA, mode)
        attributes.append(encode_nested(IFLA_LINKINFO, _text(IFLA_INFO_SLAVE_KIND, "bridge"), port))
    if isinstance(link.kind, Bridge):
        options = encode_nested(IFLA_INFO_DATA, _bridge_options(link.kind))
        attributes.append(encode_nested(IFLA_LINKINFO, _text(IFLA_INFO_KIND, "bridge"), options))
    # RTM_SETLINK would leave a bridge port's settings out (rtnl_changelink, net/core/rtnetlink.c).
    return Request(RTM_NEWLINK, 0, _ifinfomsg(0, IFF_UP, IFF_UP) + b"".join(attributes))


def set_up(index: int, *, up: bool = True) -> Request:
    """Bring a link up or down."""
    return Request(RTM_SETLINK, 0, _ifinfomsg(index, IFF_UP if up else 0, IFF_UP))


def enslave(index: int, master_index: int) -> Request:
    """Make a link a port of a bridge, or of none with index 0."""
    return Request(RTM_SETLINK, 0, _ifinfomsg(index) + _u32(IFLA_MASTER, master_index))


def set_mtu(index: int, mtu: int) -> Request:
    """Change a link's MTU."""
    return Request(RTM_SETLINK, 0, _ifinfomsg(index) + _u32(IFLA_MTU, mtu))


def rename(index: int, name: str) -> Request:
    """Rename a link; before Linux 6.2 it must be down."""
    return Request(RTM_SETLINK, 0, _ifinfomsg(index) + _text(IFLA_IFNAME, name))


def doom(index: int, alias: str) -> Request:
    """Move a link into the group GROUP_DYING. The mark goes with it: a half-made link has none yet."""
    return Request(RTM_SETLINK, 0, _ifinfomsg(index) + _u32(IFLA_GROUP, GROUP_DYING) + _text(IFLA_IFALIAS, alias))


def retire(index: int, name: str) -> Request:
    """Take a link out of its bridge and give up its name."""
    return Request(RTM_SETLINK, 0, _ifinfomsg(index) + _u32(IFLA_MASTER, 0) + _text(IFLA_IFNAME, name))


def delete_link(index: int) -> Request:
    """Delete one link."""
    return Request(RTM_DELLINK, 0, _ifinfomsg(index))


def delete_group(group: int) -> Request:
    """Delete all links of a group: one wait for RCU however many they are (rtnl_group_dellink)."""
    return Request(RTM_DELLINK, 0, _ifinfomsg() + _u32(IFLA_GROUP, group))


def get_link(name: str) -> Request:
    """Ask for one link by name."""
    return Request(
        RTM_GETLINK, 0, _ifinfomsg() + _u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) + _text(IFLA_IFNAME, name)
    )


def get_link_by_index(index: int) -> Request:
    """Ask for one link by its index."""
    return Request(RTM_GETLINK, 0, _ifinfomsg(index) + _u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS))


def get_links(*, statistics: bool = False, is_free: bool = False) -> Request:
    """Ask for all links, with their ``statistics`` only where they are wanted, or for those without a master."""
    mask = _u32(IFLA_EXT_MASK, 0 if statistics else RTEXT_FILTER_SKIP_STATS)
    # -1 stands for none since Linux 5.16 (link_master_filtered, net/core/rtnetlink.c).
    return Request(RTM_GETLINK, 0, _ifinfomsg() + mask + (_u32(IFLA_MASTER, 0xFFFFFFFF) if is_free else b""))


def link_group(group: int) -> bytes:
    """Return the attribute by which the kernel says that a link is in ``group``."""
    return _u32(IFLA_GROUP, group)


def get_nsid(namespace_fd: int) -> Request:
    """Ask which number this namespace has given to another one."""
    return Request(RTM_GETNSID, 0, struct.pack("=Bxxx", _AF_UNSPEC) + _u32(NETNSA_FD, namespace_fd))


# Addresses


def _ifaddrmsg(address: InterfaceAddress, index: int) -> bytes:
    family = _FAMILY[address.address.version]
    packed = address.address.packed
    return (
        _IFADDRMSG.pack(family, address.length, 0, RT_SCOPE_UNIVERSE, index)
        + encode_attribute(IFA_LOCAL, packed)
        + encode_attribute(IFA_ADDRESS, packed)
    )


def add_address(address: InterfaceAddress, index: int) -> Request:
    """Add an address; one that is there stays.

    IPv6 without duplicate address detection: the gateway's address is on every host on purpose, and the allocator
    has seen to the others.
    """
    flags = IFA_F_NODAD if address.address.version == 6 else 0
    if not address.connected:
        flags |= IFA_F_NOPREFIXROUTE
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, _ifaddrmsg(address, index) + _u32(IFA_FLAGS, flags))


def delete_address(address: InterfaceAddress, index: int) -> Request:
    """Delete an address."""
    return Request(RTM_DELADDR, 0, _ifaddrmsg(address, index))


def get_addresses(version: int = 0) -> Request:
    """Ask for all addresses, of both families or of one."""
    return Request(RTM_GETADDR, 0, _IFADDRMSG.pack(_FAMILY.get(version, _AF_UNSPEC), 0, 0, 0, 0))


# Routes


def _route_attributes(route: Route, index: int) -> bytes:
    attributes = [encode_attribute(RTA_DST, route.destination.network_address.packed), _u32(RTA_OIF, index)]
    if route.gateway is not None and route.gateway.version == route.destination.version:
        attributes.append(encode_attribute(RTA_GATEWAY, route.gateway.packed))
    elif route.gateway is not None:
        via = _U16.pack(_FAMILY[route.gateway.version]) + route.gateway.packed
        attributes.append(encode_attribute(RTA_VIA, via))
    if route.source is not None:
        attributes.append(encode_attribute(RTA_PREFSRC, route.source.packed))
    if route.encap is not None:
        attributes.append(encode_attribute(RTA_ENCAP_TYPE, _U16.pack(_ENCAP[route.encap.destination.version])))
        attributes.append(encode_nested(RTA_ENCAP, _encap_data(route.encap)))
    if route.mtu is not None:
        # Locked: what routers on the way say later does not undo what was found out.
        metrics = (_u32(RTAX_LOCK, 1 << RTAX_MTU), _u32(RTAX_MTU, route.mtu))
        attributes.append(encode_nested(RTA_METRICS, *metrics))
    return b"".join(attributes)


def _encap_data(encap: Encap) -> bytes:
    return (
        encode_attribute(LWTUNNEL_IP_ID, _U64_BIG.pack(encap.key))
        + encode_attribute(LWTUNNEL_IP_DST, encap.destination.packed)
        + encode_attribute(LWTUNNEL_IP_SRC, encap.source.packed)
        + encode_attribute(LWTUNNEL_IP_TTL, bytes([_TUNNEL_TTL]))
        # Without it the header has no key, whatever the id (gre_build_header, include/net/gre.h).
        + encode_attribute(LWTUNNEL_IP_FLAGS, _U16_BIG.pack(TUNNEL_KEY))
    )


def _rtmsg(route: Route, protocol: int, scope: int) -> bytes:
    family = _FAMILY[route.destination.version]
    flags = RTNH_F_ONLINK if route.onlink else 0
    length = route.destination.prefixlen
    return _RTMSG.pack(family, length, 0, 0, RT_TABLE_MAIN, protocol, scope, RTN_UNICAST, flags)


def add_route(route: Route, index: int, protocol: int, *, replace: bool = False) -> Request:
    """Add a route, refused with EEXIST if there is one to the same destination, unless it may be replaced."""
    scope = RT_SCOPE_LINK if route.gateway is None and route.destination.version == 4 else RT_SCOPE_UNIVERSE
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    return Request(RTM_NEWROUTE, flags, _rtmsg(route, protocol, scope) + _route_attributes(route, index))


def delete_route(route: Route, index: int, protocol: int) -> Request:
    """Delete the route that is ``route`` in all its parts, and no other to the same destination."""
    return Request(RTM_DELROUTE, 0, _rtmsg(route, protocol, RT_SCOPE_NOWHERE) + _route_attributes(route, index))


def get_routes(version: int, protocol: int = 0) -> Request:
    """Ask for all routes of an IP version, of one protocol number if one is given."""
    return Request(RTM_GETROUTE, 0, _RTMSG.pack(_FAMILY[version], 0, 0, 0, 0, protocol, 0, 0, 0))


# Neighbours and forwarding entries


def _neighbour(family: int, index: int, state: int, flags: int, mac: Mac, destination: Address) -> bytes:
    return (
        _NDMSG.pack(family, index, state, flags, RTN_UNICAST)
        + encode_attribute(NDA_DST, destination.packed)
        + encode_attribute(NDA_LLADDR, encode_mac(mac))
    )


def _neighbour_body(entry: Neighbour, index: int) -> bytes:
    return _neighbour(_FAMILY[entry.address.version], index, NUD_PERMANENT, 0, entry.mac, entry.address)


def _fdb_body(entry: FdbEntry, index: int) -> bytes:
    return _neighbour(_AF_BRIDGE, index, NUD_NOARP | NUD_PERMANENT, NTF_SELF, entry.mac, entry.destination)


def add_neighbour(entry: Neighbour, index: int) -> Request:
    """Add or replace a permanent neighbour entry."""
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _neighbour_body(entry, index))


def delete_neighbour(entry: Neighbour, index: int) -> Request:
    """Delete a neighbour entry."""
    return Request(RTM_DELNEIGH, 0, _neighbour_body(entry, index))


def add_fdb(entry: FdbEntry, index: int) -> Request:
    """Add or replace a VXLAN device's forwarding entry."""
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _fdb_body(entry, index))


def delete_fdb(entry: FdbEntry, index: int) -> Request:
    """Delete a VXLAN device's forwarding entry; with another destination it stays."""
    return Request(RTM_DELNEIGH, 0, _fdb_body(entry, index))


def get_neighbours(index: int, *, bridge: bool = False) -> Request:
    """Ask for the neighbour entries of one device, or for its forwarding entries (``bridge``)."""
    family = _AF_BRIDGE if bridge else _AF_UNSPEC
    return Request(RTM_GETNEIGH, 0, _NDMSG.pack(family, 0, 0, 0, 0) + _u32(NDA_IFINDEX, index))
