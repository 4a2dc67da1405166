"""Other people's firewall: what their nftables tables say, those of iptables-nft included, and iptables-legacy's.

The last are another mechanism of the kernel, which only its own program reads; where that is missing it is told.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netagent.firewall.iptables.pieces import ADMIN_PREFIX, PREFIX
from netagent.firewall.legacy import SavedRules
from netagent.firewall.marks import Presence
from netagent.firewall.verdict import OURS, Rules, chain_names
from netagent.kernel.nftables import Nftables, NftRefusalError
from netagent.kernel.xtables import save_legacy

_RULE = re.compile(r"^\s*(?P<text>.*[^{\s])\s*# handle (?P<handle>\d+)$")


@dataclass(frozen=True, slots=True)
class _Legacy:
    """Where the kernel names the tables of a program, and the version of IP that they are for."""

    names: str
    version: int


_LEGACY = {"iptables-legacy": _Legacy("ip_tables_names", 4), "ip6tables-legacy": _Legacy("ip6_tables_names", 6)}


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
    unread: list[str] = []
    for program, tables in legacy_tables().items():
        saved = save_legacy(f"{program}-save")
        if saved is None:
            unread.append(f"tables of {program}: {', '.join(tables)}")
            continue
        rules = SavedRules(saved, _LEGACY[program].version)
        listing.extend(entry for entry in rules.listing if not _is_ours(entry))
        texts.update(rules.texts)
    return Rules(listing=tuple(listing), texts=texts, unread=tuple(unread))


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
    return Presence(chains=frozenset(chains), legacy=bool(legacy_tables()))


def _rule_texts(listing: str) -> Iterator[tuple[int, str]]:
    for line in listing.splitlines():
        found = _RULE.match(line)
        if found is not None:
            yield int(found["handle"]), found["text"]


def legacy_tables() -> dict[str, list[str]]:
    """Return the tables that there are, by the program that reads them."""
    found: dict[str, list[str]] = {}
    for program, known in _LEGACY.items():
        with suppress(OSError):
            if tables := Path("/proc/thread-self/net", known.names).read_text().split():
                found[program] = sorted(tables)
    return found
