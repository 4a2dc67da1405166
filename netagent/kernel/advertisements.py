"""Keeps the default routes that the host learnt from IPv6 router advertisements when it becomes a router itself.

The kernel drops them as forwarding is switched on, and believes no further advertisement, except on interfaces whose
``accept_ra`` is 2 (rt6_purge_dflt_routers, net/ipv6/route.c; ipv6_accept_ra, net/ipv6/addrconf.h).
"""

import logging
from typing import Final

from netagent.kernel.rtnl import Rtnl
from netagent.kernel.sysctl import read_sysctl, write_sysctl
from netagent.plan.desired import SysctlName

_log = logging.getLogger("netagent.kernel")

FORWARDING6: Final[SysctlName] = ("net", "ipv6", "conf", "all", "forwarding")
_RTPROT_RA = 9
"""linux/rtnetlink.h: the route was learnt from a router advertisement."""


def keep_learnt_routes(rtnl: Rtnl) -> None:
    """Set ``accept_ra`` from 1 to 2 on every interface with such a default route. Call it before forwarding is on."""
    learnt = {r.index for r in rtnl.routes(protocol=_RTPROT_RA) if r.destination.prefixlen == 0}
    for index in learnt:
        record = rtnl.link_at(index)
        if record is None or record.is_ours:
            continue
        setting = ("net", "ipv6", "conf", record.name, "accept_ra")
        if read_sysctl(setting) == "1":
            write_sysctl(setting, "2")
            _log.warning("IPv6 forwarding is switched on: accept_ra of %s is 2 now, to keep its route", record.name)
