"""What other people's chains would do with a packet, as far as their rules can be read.

nftables asks every chain at a hook, and one drop is enough; so each base chain is judged by itself. Where a rule may
or may not match, both ways are followed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from netagent.firewall.packet import Json, Packet, matches, matches_extension

OURS = frozenset({("inet", "netagent"), ("bridge", "netagent")})
_FAMILIES = {4: frozenset({"inet", "ip"}), 6: frozenset({"inet", "ip6"})}
_AFTER_TRANSLATION = -100
"""Priority dstnat: a chain at prerouting with this or a later one sees the translated destination."""
_DEPTH = 16
"""As deep as the kernel lets chains call each other (NFT_JUMP_STACK_SIZE, net/netfilter/nf_tables.h)."""
_SILENT = frozenset({"counter", "log", "comment", "notrack", "mangle", "ct helper", "flow"})
"""Statements that decide nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A place in somebody else's rules that stops a packet: for certain, or only maybe."""

    where: str
    certain: bool


@dataclass(frozen=True, slots=True)
class _End:
    """How a way through a chain may end: "accept", "drop" or "return", and where."""

    kind: str
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Other people's whole ruleset as libnftables-json(5) lists it; ``texts`` are rules' own texts by handle.

    A text's key is (family, table, handle).
    """

    listing: Sequence[Json] = ()
    texts: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    """What is there as well and cannot be read."""

    @cached_property
    def _chains(self) -> dict[tuple[str, str, str], list[Json]]:
        chains: dict[tuple[str, str, str], list[Json]] = {}
        for entry in self.listing:
            rule = entry.get("rule")
            if rule:
                chains.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)
        return chains

    @cached_property
    def _sets(self) -> dict[tuple[str, str], dict[str, Sequence[Any]]]:
        sets: dict[tuple[str, str], dict[str, Sequence[Any]]] = {}
        for entry in self.listing:
            declared = entry.get("set")
            if declared:
                sets.setdefault((declared["family"], declared["table"]), {})[declared["name"]] = declared.get(
                    "elem", ()
                )
        return sets

    def obstacles(self, packet: Packet) -> tuple[Obstacle, ...]:
        """Return where ``packet`` is stopped, or may be."""
        return tuple(found for chain in self._base_chains(packet) if (found := self._judge(chain, packet)) is not None)

    def _base_chains(self, packet: Packet) -> Iterator[Json]:
        for entry in self.listing:
            chain = entry.get("chain")
            if not chain or chain.get("hook") != packet.hook or chain.get("type") == "nat":
                continue
            is_late = packet.hook == "prerouting" and chain.get("prio", 0) >= _AFTER_TRANSLATION
            if chain["family"] in _FAMILIES[packet.version] and not is_late:
                yield chain

    def _judge(self, chain: Json, packet: Packet) -> Obstacle | None:
        place = (chain["family"], chain["table"], chain["name"])
        ends = set(self._ends(place, packet, _DEPTH))
        if any(end.kind == "return" for end in ends):
            policy = _End(chain.get("policy", "accept"), f"{' '.join(place)}: policy {chain.get('policy', 'accept')}")
            ends = {end for end in ends if end.kind != "return"} | {policy}
        drops = sorted(end.where for end in ends if end.kind == "drop")
        if not drops:
            return None
        return Obstacle(where="; ".join(drops), certain=all(end.kind == "drop" for end in ends))

    def _ends(self, place: tuple[str, str, str], packet: Packet, depth: int) -> Iterator[_End]:
        """Yield the ways in which ``packet`` may leave a chain."""
        if depth == 0:
            yield _End("return")
            return
        for rule in self._chains.get(place, ()):
            found, verdicts = self._decide(rule, packet)
            if found is False:
                continue
            goes_on = found is None or not verdicts
            for kind, target in verdicts:
                if kind not in ("jump", "goto"):
                    yield _End(kind, self._text(rule))
                    continue
                ends = set(self._ends((*place[:2], target), packet, depth - 1))
                yield from (end for end in ends if end.kind != "return")
                if any(end.kind == "return" for end in ends):
                    goes_on |= kind == "jump"
                    if kind == "goto":
                        yield _End("return")
            if not goes_on:
                return
        yield _End("return")

    def _decide(self, rule: Json, packet: Packet) -> tuple[bool | None, list[tuple[str, str]]]:
        """Return whether a rule matches, and its verdict with the chain it names; of a verdict map all there are."""
        result: bool | None = True
        sets = self._sets.get((rule["family"], rule["table"]), {})
        for expression in rule.get("expr", ()):
            verdict = _verdict(expression)
            if verdict is not None:
                return result, [verdict]
            if "vmap" in expression:
                return None, _verdicts_in(expression["vmap"])
            if not _SILENT.isdisjoint(expression):
                continue
            extension = expression.get("xt") or {}
            if extension.get("type") == "match":
                found = matches_extension(packet, extension.get("name", ""), self._text(rule))
            else:
                found = matches(packet, expression, sets)
            if found is False:
                return False, []
            result = result if found else None
        return result, []

    def _text(self, rule: Json) -> str:
        place = f"{rule['family']} {rule['table']} {rule['chain']}"
        text = self.texts.get((rule["family"], rule["table"], rule.get("handle", 0)))
        return f"{place}: {text}" if text else f"{place}: rule with handle {rule.get('handle', 0)}"


def _verdict(expression: Json) -> tuple[str, str] | None:
    for kind in ("accept", "drop", "return"):
        if kind in expression:
            return kind, ""
    if "reject" in expression:
        return "drop", ""
    for kind in ("jump", "goto"):
        if kind in expression:
            return kind, expression[kind]["target"]
    if expression.get("xt", {}) and expression["xt"].get("name") == "REJECT":
        return "drop", ""
    return None


def _verdicts_in(vmap: Json) -> list[tuple[str, str]]:
    data = vmap.get("data")
    members = data.get("set", ()) if isinstance(data, dict) else ()
    found = (_verdict(member[1]) for member in members if isinstance(member, list) and len(member) == 2)
    return [verdict for verdict in found if verdict is not None]


def chain_names(listing: Iterable[Json]) -> frozenset[tuple[str, str, str]]:
    """Return family, table and name of all chains."""
    chains = (entry["chain"] for entry in listing if "chain" in entry)
    return frozenset((chain["family"], chain["table"], chain["name"]) for chain in chains)
