"""What the save programs print, read back: chains, jumps, ipsets, and the elements they stand for.

Which element a rule or a member is for stands in its comment, or with ebtables in its text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from netagent.firewall.iptables import admin, apart, counting, spoof
from netagent.firewall.iptables.pieces import PREFIX, Frame, Ipset, Member, Rule
from netagent.firewall.iptables.ruleset import FRAMES, IPSETS, translate
from netagent.firewall.marks import DOCKER_CHAIN

Key = tuple[str, str, str]
"""Family, table and chain."""
Elements = Mapping[str, frozenset[str]]

_COMMENT = re.compile(r'(?:--comment|comment) "([^ "]+) ([^"]+)"')
_TARGET = re.compile(r"(?:^| )-[jg] ")
_ADMIN_KEYS = frozenset(frame.key for frame in admin.FRAMES)
_KIND_WORDS = 3
"""Of ``ipset create``: type, "family", and which; the rest is what the kernel made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What is there of ours, and of the administrator's chains that they are there."""

    chains: Mapping[Key, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    jumps: Mapping[tuple[Key, str], int] = field(default_factory=lambda: MappingProxyType({}))
    """Built-in chain and target -> how many rules jump there without any condition."""
    late: frozenset[tuple[Key, str]] = frozenset()
    """Those jumps that come after one to a chain of other programs in which our own marks accept."""
    ipsets: Mapping[str, Ipset] = field(default_factory=lambda: MappingProxyType({}))
    members: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    """Ipset -> what ``ipset add`` would take, comment included."""

    def __bool__(self) -> bool:
        return bool(self.ours or self.ipsets)

    @property
    def ours(self) -> tuple[Key, ...]:
        """The chains that are ours and not the administrator's."""
        return tuple(key for key in self.chains if key not in _ADMIN_KEYS)


def parse(saved: Mapping[str, str], ipsets: str) -> Listing:
    """Return the listing in the output of the save programs, by family, and of ``ipset save``."""
    chains: dict[Key, list[str]] = {}
    jumps: Counter[tuple[Key, str]] = Counter()
    late: set[tuple[Key, str]] = set()
    for family, text in saved.items():
        table, marked = "", set[Key]()
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(f":{PREFIX}"):
                chains[family, table, line[1:].split()[0]] = []
            elif line.startswith("-A "):
                _, chain, rule = line.split(" ", 2)
                if chain.startswith(PREFIX):
                    chains[family, table, chain].append(rule)
                elif rule.startswith(f"-j {PREFIX}"):
                    jump = (family, table, chain), rule.removeprefix("-j ")
                    jumps[jump] += 1
                    late |= {jump} if jump[0] in marked else set()
                elif rule == f"-j {DOCKER_CHAIN}":
                    marked.add((family, table, chain))
    kinds, members = _parse_ipsets(ipsets)
    return Listing(
        chains=MappingProxyType({key: tuple(lines) for key, lines in chains.items()}),
        jumps=MappingProxyType(jumps),
        late=frozenset(late),
        ipsets=MappingProxyType(kinds),
        members=MappingProxyType({name: frozenset(group) for name, group in members.items()}),
    )


def _parse_ipsets(text: str) -> tuple[dict[str, Ipset], dict[str, set[str]]]:
    kinds: dict[str, Ipset] = {}
    members: dict[str, set[str]] = {}
    for line in text.splitlines():
        verb, name, rest = line.split(" ", 2)
        if not name.startswith(PREFIX):
            continue
        if verb == "create":
            kinds[name] = Ipset(name=name, kind=" ".join(rest.split()[:_KIND_WORDS]))
        elif verb == "add" and name not in counting.NAMES:
            members.setdefault(name, set()).add(rest)
    return kinds, members


def rule_text(rule: Rule, set_name: str, element: str) -> str:
    """Return a rule with the element that it is for, as it is put and as the save program prints it."""
    if rule.family == "bridge":
        return rule.text
    target = _TARGET.search(rule.text)
    assert target is not None
    start = target.start()
    return f'{rule.text[:start]} -m comment --comment "{set_name} {element}"{rule.text[start:]}'


def member_text(member: Member, set_name: str, element: str) -> str:
    """Return a member with the element that it is for, as it is put and as ``ipset save`` prints it."""
    return f'{member.text} comment "{set_name} {element}"'


def elements_in(listing: Listing) -> Elements:
    """Return the elements that anything in ``listing`` stands for."""
    found: dict[str, set[str]] = {}
    for key in listing.ours:
        for rule in listing.chains[key]:
            named = spoof.element_of(rule) or apart.element_of(rule) if key[0] == "bridge" else _named(rule)
            if named is not None:
                found.setdefault(named[0], set()).add(named[1])
    for group in listing.members.values():
        for member in group:
            if (named := _named(member)) is not None:
                found.setdefault(named[0], set()).add(named[1])
    return MappingProxyType({name: frozenset(group) for name, group in found.items() if group})


def _named(text: str) -> tuple[str, str] | None:
    found = _COMMENT.search(text)
    return (found[1], found[2]) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What elements become: the rules of each chain, the ipsets and their members."""

    rules: Mapping[Key, tuple[str, ...]]
    ipsets: Mapping[str, Ipset]
    members: Mapping[str, frozenset[str]]


def content_of(elements: Elements, *, ipsets: Iterable[Ipset] = ()) -> Content:
    """Return what ``elements`` become, beside the ``ipsets`` that are there anyway."""
    rules: dict[Key, list[str]] = {}
    kinds = {ipset.name: ipset for ipset in ipsets}
    members: dict[str, set[str]] = {}
    for set_name, group in elements.items():
        for element in sorted(group):
            for piece in translate(set_name, element):
                match piece:
                    case Rule():
                        rules.setdefault(piece.key, []).append(rule_text(piece, set_name, element))
                    case Ipset():
                        kinds[piece.name] = piece
                    case Member(ipset=ipset):
                        kinds[ipset.name] = ipset
                        members.setdefault(ipset.name, set()).add(member_text(piece, set_name, element))
    return Content(
        rules={key: tuple(texts) for key, texts in rules.items()},
        ipsets=kinds,
        members={name: frozenset(group) for name, group in members.items()},
    )


def is_intact(listing: Listing, elements: Elements) -> bool:
    """Tell whether ``listing`` is exactly what ``elements`` become, frames and jumps included."""
    try:
        content = content_of(elements, ipsets=IPSETS)
    except ValueError:
        return False
    return (
        set(listing.ours) == {frame.key for frame in FRAMES}
        and all(_is_whole(frame, listing, content.rules.get(frame.key, ())) for frame in FRAMES)
        # An empty one may be left of a tunnel that is gone.
        and all(name in content.ipsets or name not in listing.members for name in listing.ipsets)
        and listing.members == content.members
        and listing.ipsets.items() >= content.ipsets.items()
    )


def _is_whole(frame: Frame, listing: Listing, rules: tuple[str, ...]) -> bool:
    lines = listing.chains[frame.key]
    start, end = len(frame.head), len(lines) - len(frame.tail)
    return (
        lines[:start] == frame.head
        and lines[end:] == frame.tail
        and sorted(lines[start:end]) == sorted(rules)
        and has_jumps(listing, frame)
    )


def has_jumps(listing: Listing, frame: Frame) -> bool:
    """Tell whether every hook of a chain leads to it once."""
    return all(listing.jumps.get(((frame.family, frame.table, hook), frame.name)) == 1 for hook in frame.hooks)


def has_admin_chains(listing: Listing) -> bool:
    """Tell whether the administrator's chains are there and are come by before our marks."""
    return all(frame.key in listing.chains and is_reached(listing, frame) for frame in admin.FRAMES)


def is_reached(listing: Listing, frame: Frame) -> bool:
    """Tell whether a chain of the administrator's is jumped to, and not too late."""
    hooks = ((frame.family, frame.table, hook) for hook in frame.hooks)
    return has_jumps(listing, frame) and not any((hook, frame.name) in listing.late for hook in hooks)
