"""Other people's firewall: what their nftables tables say, those of iptables-nft included.

The tables of iptables-legacy are another mechanism of the kernel, which only its own program reads; that there are
some is told.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from netagent.firewall.iptables.pieces import ADMIN_PREFIX, PREFIX
from netagent.firewall.marks import Presence
from netagent.firewall.verdict import OURS, Rules, chain_names
from netagent.kernel.nftables import Nftables, NftRefusalError

_RULE = re.compile(r"^\s*(?P<text>.*[^{\s])\s*# handle (?P<handle>\d+)$")
_LEGACY = {"iptables-legacy": "ip_tables_names", "ip6tables-legacy": "ip6_tables_names"}


def read_foreign_rules(nft: Nftables) -> Rules:
    """Return the rules of all tables but netagent's own; a table that vanishes meanwhile is left out."""
    listing: list[Mapping[str, Any]] = []
    texts: dict[tuple[str, str, int], str] = {}
    for entry in json.loads(nft.run("list tables", as_json=True))["nftables"]:
        if "table" not in entry:
            continue
        place = entry["table"]["family"], entry["table"]["name"]
        if place in OURS:
            continue
        command = "list table {} {}".format(*place)
        try:
            entries = json.loads(nft.run(command, as_json=True))["nftables"]
            listing.extend(entry for entry in entries if not _is_ours(entry))
            texts.update({(*place, handle): text for handle, text in _rule_texts(nft.run(command))})
        except NftRefusalError:
            continue
    return Rules(listing=tuple(listing), texts=texts, unread=tuple(_legacy_tables()))


def _is_ours(entry: Mapping[str, Any]) -> bool:
    """Tell whether a chain or rule in one of iptables' tables is ours: its place, or where it jumps to."""
    chain, rule = entry.get("chain"), entry.get("rule")
    names = [chain["name"]] if chain else []
    if rule:
        names.append(rule["chain"])
        names.extend(statement["jump"]["target"] for statement in rule["expr"] if "jump" in statement)
    return any(name.startswith(PREFIX) and not name.startswith(ADMIN_PREFIX) for name in names)


def read_presence(nft: Nftables) -> Presence:
    """Return the chains of all tables but ours; of iptables-legacy's, which only it can list, just that there are."""
    names = chain_names(json.loads(nft.run("list chains", as_json=True))["nftables"])
    chains = {(family, chain) for family, table, chain in names if (family, table) not in OURS}
    return Presence(chains=frozenset(chains), legacy=any(True for _ in _legacy_tables()))


def _rule_texts(listing: str) -> Iterator[tuple[int, str]]:
    for line in listing.splitlines():
        found = _RULE.match(line)
        if found is not None:
            yield int(found["handle"]), found["text"]


def _legacy_tables() -> Iterator[str]:
    for program, names in _LEGACY.items():
        try:
            tables = Path("/proc/thread-self/net", names).read_text().split()
        except OSError:
            continue
        if tables:
            yield f"tables of {program}: {', '.join(sorted(tables))}"
