"""What an agent with another firewall left: found by a few cheap looks, removed by the programs that made it."""

import logging
from collections.abc import Collection
from contextlib import suppress

from netagent.errors import EnvironmentProblem
from netagent.firewall.iptables.pieces import BOTH, PREFIX
from netagent.kernel import nftables
from netagent.kernel.firewall import Firewall
from netagent.kernel.foreign import legacy_tables
from netagent.kernel.iptables import FAMILIES, IptablesFirewall
from netagent.kernel.netlink import NetlinkSocket, Request, decode_attributes
from netagent.kernel.nftables import NFGENMSG, Nftables
from netagent.kernel.port_filters import read_filters
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.uapi import NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN, NFTA_CHAIN_NAME
from netagent.kernel.xtables import FLAVOURS, ipset_names

_log = logging.getLogger("netagent.kernel")


def remove_remains(own: Firewall, nft: Nftables, rtnl: Rtnl) -> None:
    """Remove what is there of ours by other means than ``own``: nftables, or iptables of another flavour.

    Nothing is removed while ``own`` itself is not there. The programs are started only where there is something to
    remove: some twenty processes would be most of what a start takes.
    """
    if not own.is_in_place():
        _log.warning("the firewall is not in place, so what another one left stays")
        return
    flavour = own.flavour if isinstance(own, IptablesFirewall) else None
    families = _families_with_chains()
    left = {"nft": not families.isdisjoint(BOTH), "legacy": bool(legacy_tables())}
    for other in FLAVOURS:
        if other != flavour and left[other]:
            _remove_flavour(other, rtnl, families=BOTH)
    if flavour is not None:
        nftables.remove_tables(nft)
    elif "bridge" in families or read_filters(rtnl) or any(name.startswith(PREFIX) for name in ipset_names()):
        # Of ebtables' chains and ipsets there is one kind only, whatever the flavour that used them.
        for either in FLAVOURS:
            _remove_flavour(either, rtnl, families=("bridge",))


def _families_with_chains() -> frozenset[str]:
    """Return the families of nf_tables in which iptables-nft or ebtables-nft has chains of ours."""
    netfilter = NetlinkSocket(NETLINK_NETFILTER)
    try:
        request = Request(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, 0, NFGENMSG.pack(0, 0, 0))
        bodies = [message.body for message in netfilter.dump(request)]
    except OSError:
        # A kernel without nf_tables: there is nothing of it.
        return frozenset()
    finally:
        netfilter.close()
    prefix = PREFIX.encode()
    numbers = {
        body[0]
        for body in bodies
        if bytes(decode_attributes(body[NFGENMSG.size :]).get(NFTA_CHAIN_NAME, b"")).startswith(prefix)
    }
    return frozenset(family for family, number in FAMILIES.items() if number in numbers)


def _remove_flavour(flavour: str, rtnl: Rtnl, *, families: Collection[str]) -> None:
    with suppress(EnvironmentProblem):
        IptablesFirewall(f"iptables-{flavour}", rtnl).remove(families=families)
