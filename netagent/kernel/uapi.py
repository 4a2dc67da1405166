"""Numbers from the kernel's headers, spelled as there: include/uapi/linux/{netlink,rtnetlink,if_link,…}.h."""

from typing import Final

# linux/netlink.h
NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_CAP_ACK: Final = 10
NETLINK_EXT_ACK: Final = 11
NETLINK_GET_STRICT_CHK: Final = 12
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_CAPPED: Final = 0x100
NLM_F_ACK_TLVS: Final = 0x200
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

# linux/rtnetlink.h
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWRULE: Final = 32
RTM_DELRULE: Final = 33
RTM_GETRULE: Final = 34
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_NEWQDISC: Final = 36
RTM_DELQDISC: Final = 37
RTM_GETQDISC: Final = 38
RTM_NEWTFILTER: Final = 44
RTM_DELTFILTER: Final = 45
RTM_GETTFILTER: Final = 46
RTM_GETNSID: Final = 90
RTEXT_FILTER_SKIP_STATS: Final = 1 << 3
RT_TABLE_MAIN: Final = 254
RTN_UNICAST: Final = 1
RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_LINK: Final = 253
RT_SCOPE_NOWHERE: Final = 255
RTNH_F_ONLINK: Final = 4
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PRIORITY: Final = 6
RTA_PREFSRC: Final = 7
RTA_TABLE: Final = 15

# linux/fib_rules.h
FRA_SRC: Final = 2
FRA_TABLE: Final = 15
FRA_PROTOCOL: Final = 21
FR_ACT_TO_TBL: Final = 1
RTA_VIA: Final = 18
RTA_ENCAP_TYPE: Final = 21
RTA_ENCAP: Final = 22
RTNLGRP_LINK: Final = 1
RTNLGRP_NEIGH: Final = 3
RTNLGRP_TC: Final = 4
RTNLGRP_IPV4_IFADDR: Final = 5
RTNLGRP_IPV4_ROUTE: Final = 7
RTNLGRP_IPV6_IFADDR: Final = 9
RTNLGRP_IPV6_ROUTE: Final = 11

# linux/if.h, linux/if_link.h, linux/veth.h, linux/net_namespace.h
IFF_UP: Final = 1
IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINK: Final = 5
IFLA_MASTER: Final = 10
IFLA_LINKINFO: Final = 18
IFLA_IFALIAS: Final = 20
IFLA_STATS64: Final = 23
IFLA_GROUP: Final = 27
IFLA_NET_NS_FD: Final = 28
IFLA_EXT_MASK: Final = 29
IFLA_LINK_NETNSID: Final = 37
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
IFLA_INFO_SLAVE_KIND: Final = 4
IFLA_INFO_SLAVE_DATA: Final = 5
IFLA_BRPORT_MODE: Final = 4
IFLA_BR_FORWARD_DELAY: Final = 1
IFLA_BR_STP_STATE: Final = 5
IFLA_BR_MCAST_SNOOPING: Final = 23
IFLA_GRE_COLLECT_METADATA: Final = 18
IFLA_VXLAN_ID: Final = 1
IFLA_VXLAN_LOCAL: Final = 4
IFLA_VXLAN_TTL: Final = 5
IFLA_VXLAN_LEARNING: Final = 7
IFLA_VXLAN_PORT: Final = 15
IFLA_VXLAN_LOCAL6: Final = 17
VETH_INFO_PEER: Final = 1
NETNSA_NSID: Final = 1
NETNSA_FD: Final = 3

# linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
TCA_KIND: Final = 1
TCA_OPTIONS: Final = 2
TCA_STATS2: Final = 7
TCA_STATS_QUEUE: Final = 3
TC_H_ROOT: Final = 0xFFFFFFFF
TC_H_INGRESS: Final = 0xFFFFFFF1
TC_LINKLAYER_ETHERNET: Final = 1
TCA_TBF_PARMS: Final = 1
TCA_TBF_RATE64: Final = 4
TCA_TBF_BURST: Final = 6
TCA_U32_SEL: Final = 5
TCA_U32_ACT: Final = 7
TC_U32_TERMINAL: Final = 1
TC_ACT_STOLEN: Final = 4
TCA_ACT_KIND: Final = 1
TCA_ACT_OPTIONS: Final = 2
TCA_MIRRED_PARMS: Final = 2
TCA_EGRESS_REDIR: Final = 1

# linux/lwtunnel.h; LWTUNNEL_IP6_* have the same numbers. linux/if_tunnel.h
LWTUNNEL_ENCAP_IP: Final = 2
LWTUNNEL_ENCAP_IP6: Final = 4
LWTUNNEL_IP_ID: Final = 1
LWTUNNEL_IP_DST: Final = 2
LWTUNNEL_IP_SRC: Final = 3
LWTUNNEL_IP_TTL: Final = 4
LWTUNNEL_IP_FLAGS: Final = 6
TUNNEL_KEY: Final = 0x04

# linux/if_addr.h, linux/neighbour.h
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_FLAGS: Final = 8
IFA_F_NODAD: Final = 0x02
IFA_F_NOPREFIXROUTE: Final = 0x200
NDA_DST: Final = 1
NDA_LLADDR: Final = 2
NDA_IFINDEX: Final = 8
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80
NTF_SELF: Final = 0x02

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
NFNL_SUBSYS_NFTABLES: Final = 10
NFNLGRP_NFTABLES: Final = 7
NFT_MSG_NEWTABLE: Final = 0
NFT_MSG_GETTABLE: Final = 1
NFT_MSG_DELTABLE: Final = 2
NFT_MSG_NEWCHAIN: Final = 3
NFT_MSG_DELCHAIN: Final = 5
NFT_MSG_NEWRULE: Final = 6
NFT_MSG_DELRULE: Final = 8
NFT_MSG_NEWGEN: Final = 15
NFTA_GEN_PROC_PID: Final = 2
NFTA_TABLE_NAME: Final = 1
NFTA_TABLE_USERDATA: Final = 6
NFTA_CHAIN_NAME: Final = 3
NFTA_RULE_CHAIN: Final = 2
NFPROTO_INET: Final = 1
NFPROTO_IPV4: Final = 2
NFPROTO_IPV6: Final = 10
NFPROTO_BRIDGE: Final = 7

# linux/netfilter/nfnetlink_conntrack.h
NFNL_SUBSYS_CTNETLINK: Final = 1
IPCTNL_MSG_CT_GET: Final = 1
IPCTNL_MSG_CT_DELETE: Final = 2
IPCTNL_MSG_CT_GET_STATS: Final = 5
CTA_TUPLE_ORIG: Final = 1
CTA_TUPLE_REPLY: Final = 2
CTA_ID: Final = 12
CTA_ZONE: Final = 18
CTA_FILTER: Final = 25
CTA_TUPLE_IP: Final = 1
CTA_TUPLE_PROTO: Final = 2
CTA_IP_V4_SRC: Final = 1
CTA_IP_V4_DST: Final = 2
CTA_IP_V6_SRC: Final = 3
CTA_IP_V6_DST: Final = 4
CTA_PROTO_NUM: Final = 1
CTA_PROTO_SRC_PORT: Final = 2
CTA_PROTO_DST_PORT: Final = 3
CTA_FILTER_ORIG_FLAGS: Final = 1
CTA_FILTER_REPLY_FLAGS: Final = 2
CTA_STATS_GLOBAL_ENTRIES: Final = 1
