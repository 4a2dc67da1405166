"""Reads the counters of our links, and what their shapers have dropped."""

import struct
from collections.abc import Mapping
from dataclasses import replace

from netagent.kernel.decode import decode_link
from netagent.kernel.encode import get_links
from netagent.kernel.limits import read_drops
from netagent.kernel.netlink import decode_attributes
from netagent.kernel.rtnl import Rtnl
from netagent.kernel.uapi import IFLA_STATS64, RTM_NEWLINK
from netagent.model.counters import Counters

_IFINFOMSG_BYTES = 16
_STATS = struct.Struct("=QQQQQQQQ")
"""The beginning of struct rtnl_link_stats64 (linux/if_link.h)."""


def read_counters(rtnl: Rtnl) -> Mapping[str, Counters]:
    """Return the counters of every link of ours by name; what its shaper dropped counts as dropped on sending."""
    found: dict[int, tuple[str, Counters]] = {}
    for body in rtnl.dump(get_links(statistics=True), RTM_NEWLINK):
        link = decode_link(body)
        if not link.is_ours or link.is_dying:
            continue
        attributes = decode_attributes(body[_IFINFOMSG_BYTES:])
        rx_packets, tx_packets, rx_bytes, tx_bytes, _, _, rx_dropped, tx_dropped = _STATS.unpack_from(
            attributes[IFLA_STATS64]
        )
        found[link.index] = (
            link.name,
            Counters(
                rx_bytes=rx_bytes,
                rx_packets=rx_packets,
                rx_dropped=rx_dropped,
                tx_bytes=tx_bytes,
                tx_packets=tx_packets,
                tx_dropped=tx_dropped,
            ),
        )
    drops = read_drops(rtnl)
    return {
        name: replace(counters, tx_dropped=counters.tx_dropped + drops.get(index, 0))
        for index, (name, counters) in found.items()
    }
