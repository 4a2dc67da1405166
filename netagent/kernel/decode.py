"""Answers of rtnetlink into values: links as the kernel has them, and the plan's own kinds."""

import ipaddress
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from netagent.kernel.encode import GROUP_DYING, GROUP_MAKING
from netagent.kernel.netlink import decode_attributes, find_attribute, pick_attributes
from netagent.kernel.uapi import (
    BR_BOOLOPT_NO_LL_LEARN,
    IFA_ADDRESS,
    IFA_F_NOPREFIXROUTE,
    IFA_FLAGS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_BR_MULTI_BOOLOPT,
    IFLA_BRPORT_MODE,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_LINK,
    IFLA_LINK_NETNSID,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_VXLAN_ID,
    IFLA_VXLAN_LOCAL,
    IFLA_VXLAN_LOCAL6,
    IFLA_VXLAN_PORT,
    LWTUNNEL_ENCAP_IP,
    LWTUNNEL_ENCAP_IP6,
    LWTUNNEL_IP_DST,
    LWTUNNEL_IP_ID,
    LWTUNNEL_IP_SRC,
    NDA_DST,
    NDA_LLADDR,
    NETNSA_NSID,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_ENCAP,
    RTA_ENCAP_TYPE,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTA_VIA,
    RTAX_MTU,
    RTN_UNICAST,
    RTNH_F_ONLINK,
)
from netagent.model.address import Address, Mac, Prefix
from netagent.plan.desired import ALIAS_PREFIX, LINK_PREFIX, Encap, Vxlan

_IFINFOMSG = struct.Struct("=BxHiII")
_IFADDRMSG = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_NDMSG = struct.Struct("=BxxxiHBB")
_BOOLOPT = struct.Struct("=II")
_RTGENMSG_BYTES = 4
_RTVIA_FAMILY_BYTES = 2
_AF_INET6 = 10
_EMPTY = memoryview(b"")
_OF_LINKS = frozenset(
    {
        *(IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER),
        *(IFLA_LINKINFO, IFLA_IFALIAS, IFLA_GROUP, IFLA_LINK_NETNSID),
    }
)
_UNSPECIFIED = memoryview(bytes(4))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRecord:
    """A link as the kernel reports it. ``peer`` and ``peer_nsid`` lead to the other end of a veth pair.

    ``hairpin`` is a setting of a bridge's port, ``learns_from_groups`` of a bridge.
    """

    index: int
    name: str
    up: bool
    mtu: int
    mac: Mac
    master: int
    alias: str
    group: int
    kind: str
    peer: int
    peer_nsid: int | None
    vxlan: Vxlan | None
    hairpin: bool
    learns_from_groups: bool

    @property
    def is_half_made(self) -> bool:
        """Whether the agent died between creating this link and marking it."""
        return self.group == GROUP_MAKING and not self.alias and self.name.startswith(LINK_PREFIX)

    @property
    def is_ours(self) -> bool:
        """Whether the link bears our marks, also if it is half made or about to be deleted."""
        marked = self.name.startswith(LINK_PREFIX) and self.alias.startswith(ALIAS_PREFIX)
        return marked or self.is_half_made

    @property
    def is_dying(self) -> bool:
        """Whether the link waits for its deletion in the background."""
        return self.group == GROUP_DYING


@dataclass(frozen=True, slots=True)
class AddressRecord:
    """An address on the interface ``index``."""

    index: int
    address: Address
    length: int
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRecord:
    """A unicast route of the main table; ``index`` is 0 where it has several next hops."""

    destination: Prefix
    index: int
    gateway: Address | None
    source: Address | None
    onlink: bool
    protocol: int
    metric: int
    encap: Encap | None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class NeighbourRecord:
    """An entry of the interface ``index``. ``address`` is the neighbour, or for forwarding the tunnel's other end."""

    index: int
    state: int
    address: Address | None
    mac: Mac | None


def _u32(value: memoryview) -> int:
    return int.from_bytes(value[:4], sys.byteorder)


def _text(value: memoryview) -> str:
    return bytes(value).rstrip(b"\0").decode(errors="replace")


def _mac(value: memoryview) -> Mac:
    return Mac(bytes(value).hex(":"))


def _address(value: memoryview) -> Address:
    return ipaddress.ip_address(bytes(value))


def _optional(attributes: Mapping[int, memoryview], kind: int) -> Address | None:
    value = attributes.get(kind)
    return None if value is None else _address(value)


def decode_link(body: memoryview) -> LinkRecord:
    """Return the link of an RTM_NEWLINK or RTM_DELLINK message."""
    _family, _type, index, flags, _change = _IFINFOMSG.unpack_from(body)
    attributes = pick_attributes(body[_IFINFOMSG.size :], _OF_LINKS)
    info = decode_attributes(attributes.get(IFLA_LINKINFO, _EMPTY))
    kind = _text(info.get(IFLA_INFO_KIND, _EMPTY))
    port = info.get(IFLA_INFO_SLAVE_DATA, _EMPTY) if attributes.get(IFLA_MASTER) else _EMPTY
    nsid = attributes.get(IFLA_LINK_NETNSID)
    return LinkRecord(
        index=index,
        name=_text(attributes.get(IFLA_IFNAME, _EMPTY)),
        up=bool(flags & IFF_UP),
        mtu=_u32(attributes.get(IFLA_MTU, _EMPTY)),
        mac=_mac(attributes.get(IFLA_ADDRESS, _EMPTY)),
        master=_u32(attributes.get(IFLA_MASTER, _EMPTY)),
        alias=_text(attributes.get(IFLA_IFALIAS, _EMPTY)),
        group=_u32(attributes.get(IFLA_GROUP, _EMPTY)),
        kind=kind,
        peer=_u32(attributes.get(IFLA_LINK, _EMPTY)),
        peer_nsid=None if nsid is None else _u32(nsid),
        vxlan=_vxlan(info.get(IFLA_INFO_DATA, _EMPTY)) if kind == "vxlan" else None,
        hairpin=bytes(find_attribute(port, IFLA_BRPORT_MODE) or b"\0") != b"\0",
        learns_from_groups=kind == "bridge" and _learns_from_groups(info.get(IFLA_INFO_DATA, _EMPTY)),
    )


def _learns_from_groups(data: memoryview) -> bool:
    """Tell whether a bridge does that could be told not to (since Linux 5.0)."""
    options = decode_attributes(data).get(IFLA_BR_MULTI_BOOLOPT)
    return options is not None and not _BOOLOPT.unpack(options)[0] >> BR_BOOLOPT_NO_LL_LEARN & 1


def _vxlan(data: memoryview) -> Vxlan:
    attributes = decode_attributes(data)
    local = attributes.get(IFLA_VXLAN_LOCAL) or attributes.get(IFLA_VXLAN_LOCAL6) or _UNSPECIFIED
    port = int.from_bytes(attributes.get(IFLA_VXLAN_PORT, _EMPTY), "big")
    return Vxlan(vni=_u32(attributes.get(IFLA_VXLAN_ID, _EMPTY)), local=_address(local), port=port)


def decode_nsid(body: memoryview) -> int | None:
    """Return the number of a namespace out of the answer to RTM_GETNSID, None if it has none."""
    value = decode_attributes(body[_RTGENMSG_BYTES:]).get(NETNSA_NSID)
    nsid = None if value is None else _u32(value)
    return None if nsid == 0xFFFFFFFF else nsid


def decode_address(body: memoryview) -> AddressRecord | None:
    """Return the address of an RTM_NEWADDR message."""
    _family, length, _flags, _scope, index = _IFADDRMSG.unpack_from(body)
    attributes = decode_attributes(body[_IFADDRMSG.size :])
    value = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS)
    if value is None:
        return None
    flags = _u32(attributes.get(IFA_FLAGS, _EMPTY))
    return AddressRecord(index, _address(value), length, not flags & IFA_F_NOPREFIXROUTE)


def decode_route(body: memoryview) -> RouteRecord | None:
    """Return the route of an RTM_NEWROUTE message, None unless it is a unicast route of the main table."""
    family, length, _source_length, _tos, table, protocol, _scope, kind, flags = _RTMSG.unpack_from(body)
    attributes = decode_attributes(body[_RTMSG.size :])
    if RTA_TABLE in attributes:
        table = _u32(attributes[RTA_TABLE])
    if table != RT_TABLE_MAIN or kind != RTN_UNICAST:
        return None
    destination = bytes(attributes.get(RTA_DST, _EMPTY)) or bytes(16 if family == _AF_INET6 else 4)
    return RouteRecord(
        destination=ipaddress.ip_network((destination, length)),
        index=_u32(attributes.get(RTA_OIF, _EMPTY)),
        gateway=_gateway(attributes),
        source=_optional(attributes, RTA_PREFSRC),
        onlink=bool(flags & RTNH_F_ONLINK),
        protocol=protocol,
        metric=_u32(attributes.get(RTA_PRIORITY, _EMPTY)),
        encap=_encap(attributes),
        mtu=_route_mtu(attributes),
    )


def _gateway(attributes: Mapping[int, memoryview]) -> Address | None:
    via = attributes.get(RTA_VIA)
    return _optional(attributes, RTA_GATEWAY) if via is None else _address(via[_RTVIA_FAMILY_BYTES:])


def _route_mtu(attributes: Mapping[int, memoryview]) -> int | None:
    metrics = decode_attributes(attributes.get(RTA_METRICS, _EMPTY))
    return _u32(metrics[RTAX_MTU]) if RTAX_MTU in metrics else None


def _encap(attributes: Mapping[int, memoryview]) -> Encap | None:
    kind = int.from_bytes(attributes.get(RTA_ENCAP_TYPE, _EMPTY), sys.byteorder)
    if kind not in (LWTUNNEL_ENCAP_IP, LWTUNNEL_ENCAP_IP6):
        return None
    data = decode_attributes(attributes.get(RTA_ENCAP, _EMPTY))
    source, destination = _optional(data, LWTUNNEL_IP_SRC), _optional(data, LWTUNNEL_IP_DST)
    if source is None or destination is None:
        return None
    return Encap(key=int.from_bytes(data.get(LWTUNNEL_IP_ID, _EMPTY), "big"), source=source, destination=destination)


def decode_neighbour(body: memoryview) -> NeighbourRecord:
    """Return the entry of an RTM_NEWNEIGH message."""
    _family, index, state, _flags, _type = _NDMSG.unpack_from(body)
    attributes = decode_attributes(body[_NDMSG.size :])
    mac = attributes.get(NDA_LLADDR)
    return NeighbourRecord(index, state, _optional(attributes, NDA_DST), None if mac is None else _mac(mac))
