"""What the translations are made of."""

from collections.abc import Iterator
from dataclasses import dataclass, field

PREFIX = "NETAGENT-"
"""How every chain and every ipset of ours begins."""

ADMIN_PREFIX = f"{PREFIX}ADMIN-"
"""How the chains of the administrator's own begin."""

BOTH = ("ip", "ip6")
"""The families of iptables and ip6tables; the third is ``bridge``, that of ebtables."""

IPSET_FAMILIES = {4: "inet", 6: "inet6"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A chain of ours and what in it is constant: rules before (``head``) and after (``tail``) those of elements.

    ``hooks`` are the built-in chains that jump to it. All rules are written as the save programs print them, so that
    what is there compares as text.
    """

    family: str
    table: str
    name: str
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """Family, table and name."""
        return self.family, self.table, self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule for one element, in the middle of a frame. The order of such rules does not matter."""

    family: str
    table: str
    chain: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Family, table and chain."""
        return self.family, self.table, self.chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipset:
    """An ipset; ``kind`` is its type and family as ``ipset create`` takes them. A name stands for one kind only.

    With ``counters`` its members come from rules and count what they match; they stand for no element.
    """

    name: str
    kind: str
    counters: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One element as a member of an ipset."""

    ipset: Ipset
    text: str


Piece = Rule | Ipset | Member


def frames(
    name: str,
    *,
    table: str,
    head: tuple[str, ...] = (),
    tail: tuple[str, ...] = (),
    hooks: tuple[str, ...] = (),
    families: tuple[str, ...] = BOTH,
) -> tuple[Frame, ...]:
    """Return the chain ``NETAGENT-<name>`` for each family."""
    return tuple(
        Frame(family=family, table=table, name=PREFIX + name, head=head, tail=tail, hooks=hooks) for family in families
    )


def rules(chain: str, text: str, *, table: str, families: tuple[str, ...] = BOTH) -> Iterator[Rule]:
    """Yield the rule ``text`` of the chain ``NETAGENT-<chain>`` for each family."""
    for family in families:
        yield Rule(family=family, table=table, chain=PREFIX + chain, text=text)


def parts(element: str) -> list[str]:
    """Return the parts of an element's key."""
    return element.partition(" : ")[0].split(" . ")
