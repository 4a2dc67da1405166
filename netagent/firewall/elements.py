"""Elements as text, in the one spelling of ``plan.desired.Ruleset``: their keys, and which intervals overlap."""

from ipaddress import ip_address, ip_network
from itertools import zip_longest


def element_key(element: str) -> str:
    """Return the key of an element, without a map's data."""
    return element.partition(" : ")[0]


def overlap(one: str, other: str) -> bool:
    """Tell whether two keys of an interval set share a value: they do if each of their parts does."""
    pairs = zip_longest(one.split(" . "), other.split(" . "), fillvalue="")
    return all(first == second or _parts_overlap(first, second) for first, second in pairs)


def _parts_overlap(one: str, other: str) -> bool:
    try:
        low, high = _bounds(one)
        other_low, other_high = _bounds(other)
    except ValueError:
        return False
    return low <= other_high and other_low <= high


def _bounds(part: str) -> tuple[int, int]:
    """Return the first and last value of a number, an address, a prefix or a range; ValueError for a name."""
    if "/" in part:
        network = ip_network(part)
        return int(network[0]), int(network[-1])
    first, dash, last = part.partition("-")
    return _value(first), _value(last if dash else first)


def _value(text: str) -> int:
    if text.startswith("0x"):
        return int(text, 16)
    return int(text) if text.isdecimal() else int(ip_address(text))
