"""Neighbour advertisements and duplicate address detection (``firewall.spoof``) as a program of classic BPF.

ebtables does not see what a neighbour message is about. A program at the port does: with its addresses as constants
it looks for their like at offset 8 of the message (RFC 4861, 4.3 and 4.4), behind a few extension headers. It answers
as tc's classifier does with ``direct-action`` (net/sched/cls_bpf.c): go on, or drop.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise

Instruction = tuple[int, int, int, int]
"""Operation, where to go on if a comparison is true, where if not, and an operand (linux/filter.h)."""

SET_NAME = "bridge/nd_targets"

_GO_ON, _DROP = 0xFFFFFFFF, 2
"""TC_ACT_UNSPEC and TC_ACT_SHOT (linux/pkt_cls.h)."""
_LOAD_BYTE, _LOAD_WORD = 0x30, 0x20
_BYTE_AT_X, _HALF_AT_X, _WORD_AT_X = 0x50, 0x48, 0x40
_LOAD_LENGTH, _LOAD_NUMBER, _LOAD_KEPT, _KEEP = 0x80, 0x00, 0x60, 0x02
_X_IS, _X_IS_A = 0x01, 0x07
_ADD, _ADD_X, _SUBTRACT, _SHIFT = 0x04, 0x0C, 0x14, 0x64
_IF_EQUAL, _IF_LEAST_X, _IF_BITS, _GO, _RETURN = 0x15, 0x3D, 0x45, 0x05, 0x06

_NEXT_HEADER, _SOURCE, _AFTER_HEADER = 14 + 6, 14 + 8, 14 + 40
"""Offsets in an Ethernet frame."""
_EXTENSIONS = (0, 43, 60, 135)
"""Hop-by-hop, routing, destination options, mobility: length in units of 8 octets, without the first."""
_FRAGMENT, _AUTHENTICATION, _ICMPV6 = 44, 51, 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_LEAST, _WHOLE = 8, 24
"""Octets of any header that is looked into, and of a neighbour message up to the end of its target."""
_MOST_EXTENSIONS = 4
"""Nobody sends more; who does is refused."""


class _Assembly:
    """Instructions with names for where to go; comparisons name both ways, None is the next instruction."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str | None, str | None, int]] = []
        self._places: dict[str, int] = {}

    def here(self, name: str) -> None:
        self._places[name] = len(self._lines)

    def do(self, code: int, operand: int = 0) -> None:
        self._lines.append((code, None, None, operand))

    def test(self, code: int, operand: int, yes: str | None, no: str | None = None) -> None:
        self._lines.append((code, yes, no, operand))

    def go(self, name: str) -> None:
        self._lines.append((_GO, name, None, 0))

    def assembled(self) -> tuple[Instruction, ...]:
        def steps(number: int, name: str | None) -> int:
            return 0 if name is None else self._places[name] - number - 1

        return tuple(
            (code, 0, 0, steps(number, yes)) if code == _GO else (code, steps(number, yes), steps(number, no), operand)
            for number, (code, yes, no, operand) in enumerate(self._lines)
        )


def program(targets: Iterable[int]) -> tuple[Instruction, ...]:
    """Return the program that drops neighbour messages about other addresses than ``targets``.

    Of solicitations only those without a source, by which an address is claimed.
    """
    code = _Assembly()
    code.do(_LOAD_BYTE, _NEXT_HEADER)
    code.do(_X_IS, _AFTER_HEADER)
    for number in range(_MOST_EXTENSIONS + 1):
        _pass_header(code, number)
    code.here(f"header{_MOST_EXTENSIONS + 1}")
    code.do(_RETURN, _DROP)
    code.here("icmp")
    _require(code, _LEAST, "icmp")
    code.do(_BYTE_AT_X, 0)
    code.test(_IF_EQUAL, _ADVERTISEMENT, "about")
    code.test(_IF_EQUAL, _SOLICITATION, None, "innocent")
    for offset in range(0, 16, 4):
        code.do(_LOAD_WORD, _SOURCE + offset)
        code.test(_IF_EQUAL, 0, None, "innocent")
    code.go("about")
    code.here("innocent")
    code.do(_RETURN, _GO_ON)
    code.here("about")
    _require(code, _WHOLE, "about")
    for number, target in enumerate(sorted(targets)):
        for word in range(4):
            code.do(_WORD_AT_X, 8 + 4 * word)
            code.test(_IF_EQUAL, target >> 32 * (3 - word) & 0xFFFFFFFF, None, f"not{number}")
        code.do(_RETURN, _GO_ON)
        code.here(f"not{number}")
    code.do(_RETURN, _DROP)
    return code.assembled()


def _pass_header(code: _Assembly, number: int) -> None:
    """Add what goes past one header at X whose type is in A, or to the message."""
    name = f"header{number}"
    code.here(name)
    code.test(_IF_EQUAL, _ICMPV6, None, f"{name}-other")
    code.go("icmp")
    code.here(f"{name}-other")
    for kind in _EXTENSIONS:
        code.test(_IF_EQUAL, kind, f"{name}-extension")
    code.test(_IF_EQUAL, _AUTHENTICATION, f"{name}-authentication")
    code.test(_IF_EQUAL, _FRAGMENT, f"{name}-fragment")
    code.do(_RETURN, _GO_ON)
    for place, more, shift in ((f"{name}-extension", 1, 3), (f"{name}-authentication", 2, 2)):
        code.here(place)
        _require(code, _LEAST, place)
        code.do(_BYTE_AT_X, 0)
        code.do(_KEEP)
        code.do(_BYTE_AT_X, 1)
        code.do(_ADD, more)
        code.do(_SHIFT, shift)
        code.go(f"{name}-next")
    code.here(f"{name}-fragment")
    _require(code, _LEAST, f"{name}-fragment")
    code.do(_HALF_AT_X, 2)
    # Only the first piece of a packet shows what is in it.
    code.test(_IF_BITS, 0xFFF8, None, f"{name}-first")
    code.do(_RETURN, _GO_ON)
    code.here(f"{name}-first")
    code.do(_BYTE_AT_X, 0)
    code.do(_KEEP)
    code.do(_LOAD_NUMBER, 8)
    code.here(f"{name}-next")
    code.do(_ADD_X)
    code.do(_X_IS_A)
    code.do(_LOAD_KEPT)


def _require(code: _Assembly, octets: int, name: str) -> None:
    """Add the drop of a frame that ends less than ``octets`` after X: loading what is not there would let it pass."""
    code.do(_LOAD_LENGTH)
    code.do(_SUBTRACT, octets)
    code.test(_IF_LEAST_X, 0, f"{name}-whole")
    code.do(_RETURN, _DROP)
    code.here(f"{name}-whole")


def targets_of(found: tuple[Instruction, ...]) -> frozenset[int] | None:
    """Return the targets of which ``found`` is the program, None if it is none of ours."""
    words = [value[3] for load, value in pairwise(found) if load[0] == _WORD_AT_X and value[0] == _IF_EQUAL]
    targets = frozenset(
        words[n] << 96 | words[n + 1] << 64 | words[n + 2] << 32 | words[n + 3] for n in range(0, len(words) - 3, 4)
    )
    return targets if program(targets) == found else None


def by_port(elements: Iterable[str]) -> Mapping[str, frozenset[int]]:
    """Return the targets that elements of the set name, by port."""
    found: dict[str, set[int]] = {}
    for element in elements:
        port, _, target = element.partition(" . ")
        found.setdefault(port, set()).add(int(target, 16))
    return {port: frozenset(group) for port, group in found.items()}


def elements_of(port: str, targets: Iterable[int]) -> frozenset[str]:
    """Return the elements of the set that a port's program stands for."""
    return frozenset(f"{port} . {target:#x}" for target in targets)
