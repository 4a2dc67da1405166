"""What is given to the restore programs: one text for each family, and one before and after them for ``ipset``.

An ipset is there before a rule names it and goes after. Every table of a text is replaced in one step.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from netagent.firewall.iptables import admin
from netagent.firewall.iptables.listing import Content, Elements, Key, Listing, content_of, is_reached
from netagent.firewall.iptables.pieces import Frame
from netagent.firewall.iptables.ruleset import FRAMES, IPSETS

_FRAMES_BY_KEY = {frame.key: frame for frame in FRAMES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripts:
    """Texts in the order in which they are run; empty ones are not."""

    ipsets_before: str = ""
    restore: Mapping[str, str] = field(default_factory=dict)
    ipsets_after: str = ""


class _Tables:
    """Lines gathered by family and table."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[str, list[str]]] = {}

    def add(self, family: str, table: str, line: str) -> None:
        self._lines.setdefault(family, {}).setdefault(table, []).append(line)

    def texts(self) -> dict[str, str]:
        return {
            family: "".join(f"*{table}\n" + "\n".join(lines) + "\nCOMMIT\n" for table, lines in tables.items())
            for family, tables in self._lines.items()
        }


def replace_all(observed: Listing, elements: Elements) -> Scripts:
    """Return what turns whatever is there of ours into what ``elements`` become."""
    content = content_of(elements, ipsets=IPSETS)
    tables = _Tables()
    for frame in FRAMES:
        tables.add(frame.family, frame.table, _declaration(frame))
    for frame in FRAMES:
        for text in (*frame.head, *content.rules.get(frame.key, ()), *frame.tail):
            tables.add(frame.family, frame.table, f"-A {frame.name} {text}")
    for frame in FRAMES:
        _hook(tables, frame, observed)
    # The administrator's go before ours again.
    for frame in admin.FRAMES:
        if frame.key in observed.chains:
            _hook(tables, frame, observed)
    _drop(tables, [key for key in observed.ours if key not in _FRAMES_BY_KEY])
    return Scripts(
        ipsets_before=_additions(content, observed),
        restore=tables.texts(),
        ipsets_after=_removals(content, observed),
    )


def _declaration(frame: Frame) -> str:
    """Return the line that makes a chain, or empties one that is there."""
    return f":{frame.name} RETURN" if frame.family == "bridge" else f":{frame.name} - [0:0]"


def _hook(tables: _Tables, frame: Frame, observed: Listing) -> None:
    for hook in frame.hooks:
        for _ in range(observed.jumps.get(((frame.family, frame.table, hook), frame.name), 0)):
            tables.add(frame.family, frame.table, f"-D {hook} -j {frame.name}")
        tables.add(frame.family, frame.table, f"-I {hook} 1 -j {frame.name}")


def _drop(tables: _Tables, keys: Iterable[Key]) -> None:
    for option in ("-F", "-X"):
        for family, table, chain in keys:
            tables.add(family, table, f"{option} {chain}")


def _additions(content: Content, observed: Listing) -> str:
    lines = [
        f"create {ipset.name} {ipset.kind} {'counters' if ipset.counters else 'comment'}"
        for ipset in content.ipsets.values()
    ]
    for name, group in content.members.items():
        lines.extend(f"add {name} {text}" for text in sorted(group - observed.members.get(name, frozenset())))
    return _lines(lines)


def _removals(content: Content, observed: Listing) -> str:
    lines = [
        f"del {name} {_address(text)}"
        for name in content.ipsets
        for text in sorted(observed.members.get(name, frozenset()) - content.members.get(name, frozenset()))
        # The same address with another comment was put anew.
        if _address(text) not in map(_address, content.members.get(name, ()))
    ]
    lines.extend(f"destroy {name}" for name in observed.ipsets if name not in content.ipsets)
    return _lines(lines)


def _address(member: str) -> str:
    return member.partition(" comment ")[0]


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def add_elements(elements: Elements) -> Scripts:
    """Return what adds ``elements``, none of which is there."""
    content = content_of(elements)
    tables = _Tables()
    for key, texts in content.rules.items():
        frame = _FRAMES_BY_KEY[key]
        # In front of what ends the chain.
        place = f"-I {frame.name} {len(frame.head) + 1}" if frame.tail else f"-A {frame.name}"
        for text in texts:
            tables.add(frame.family, frame.table, f"{place} {text}")
    return Scripts(ipsets_before=_additions(content, Listing()), restore=tables.texts())


def delete_elements(elements: Elements) -> Scripts:
    """Return what deletes ``elements``, all of which are there."""
    content = content_of(elements)
    tables = _Tables()
    for (family, table, chain), texts in content.rules.items():
        for text in texts:
            tables.add(family, table, f"-D {chain} {text}")
    lines = [f"del {name} {_address(text)}" for name, group in content.members.items() for text in sorted(group)]
    kept = {ipset.name for ipset in IPSETS} | content.members.keys()
    lines.extend(f"destroy {name}" for name in content.ipsets if name not in kept)
    return Scripts(restore=tables.texts(), ipsets_after=_lines(lines))


def add_admin_chains(observed: Listing) -> Scripts:
    """Return what makes those of the administrator's chains that are missing, and leads to them."""
    tables = _Tables()
    for frame in admin.FRAMES:
        if frame.key not in observed.chains:
            tables.add(frame.family, frame.table, _declaration(frame))
    for frame in admin.FRAMES:
        if not is_reached(observed, frame):
            _hook(tables, frame, observed)
    return Scripts(restore=tables.texts())


def remove_all(observed: Listing, families: Iterable[str]) -> Scripts:
    """Return what removes everything of ours in ``families``, ipsets with ``bridge``.

    Of the administrator's chains only empty ones go: rules in them are not ours.
    """
    chosen = frozenset(families)
    is_admins = {frame.key for frame in admin.FRAMES}
    going = [key for key, lines in observed.chains.items() if key[0] in chosen and not (key in is_admins and lines)]
    names = {(family, table, chain) for family, table, chain in going}
    tables = _Tables()
    for ((family, table, hook), target), count in observed.jumps.items():
        if (family, table, target) in names:
            for _ in range(count):
                tables.add(family, table, f"-D {hook} -j {target}")
    _drop(tables, going)
    return Scripts(
        restore=tables.texts(),
        ipsets_after=_lines(f"destroy {name}" for name in observed.ipsets) if "bridge" in chosen else "",
    )
