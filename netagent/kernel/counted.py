"""Counters of published ports in dynamic sets (``firewall.counting``), by nftables. For the worker thread only."""

import json
import logging
from collections.abc import Iterable, Set
from ipaddress import ip_address

from netagent.firewall.counting import RECEIVED, SENT, ServedPort
from netagent.kernel.elements import Change, ElementWriter
from netagent.kernel.nftables import TABLE, Nftables, NftRefusalError

_log = logging.getLogger("netagent.kernel")

_FEW = 64
"""As many ports are forgotten without a look at which were counted."""


def read_counted(nft: Nftables, set_names: Iterable[str]) -> dict[ServedPort, tuple[int, int]]:
    """Return the bytes and packets that rules have counted in dynamic sets; nothing where there are none."""
    found: dict[ServedPort, tuple[int, int]] = {}
    for name in set_names:
        try:
            listing = json.loads(nft.run(f"list set inet {TABLE} {name}", as_json=True))["nftables"]
        except NftRefusalError:
            continue
        for entry in (each["elem"] for one in listing for each in one.get("set", {}).get("elem", ())):
            address, protocol, port = entry["val"]["concat"]
            counter = entry["counter"]
            found[ip_address(address), protocol, port] = (counter["bytes"], counter["packets"])
    return found


def forget_counted(nft: Nftables, writer: ElementWriter, ports: Set[ServedPort]) -> None:
    """Let the counting of these ports begin anew."""
    if len(ports) > _FEW:
        counted = read_counted(nft, RECEIVED).keys() | read_counted(nft, SENT).keys()
        ports = ports & counted
    changes: list[Change] = []
    for version, names in ((4, (RECEIVED[0], SENT[0])), (6, (RECEIVED[1], SENT[1]))):
        keys = [f"{address} . {protocol} . {port}" for address, protocol, port in ports if address.version == version]
        # One that is not there cannot be deleted.
        changes.extend(Change(name, keys, is_addition) for name in names for is_addition in (True, False) if keys)
    refusals = writer.commit(changes)
    if refusals is None or any(refusals):
        reason = next(filter(None, refusals or ()), None)
        _log.warning("counters of published ports are not reset: %s", reason.text if reason else "no such sets")
