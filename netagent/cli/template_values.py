"""What templates do with values: Go's truth and text, and the functions of Docker's ``--format``. Pure."""

import json as _json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

WIDEST = 1000
"""Characters that a value may be padded to or by."""


class Mistake(Exception):
    """A function was given what it cannot use."""


def is_true(value: Any) -> bool:
    """Tell whether Go's ``if`` takes ``value`` as true: not false, 0, nil or empty."""
    return bool(value)


def go_text(value: Any) -> str:
    """Return ``value`` as Go's text/template prints it."""
    match value:
        case None:
            return "<no value>"
        case bool():
            return str(value).lower()
        case Mapping():
            shown = (f"{key}:{go_text(value[key])}" for key in sorted(value) if not callable(value[key]))
            return f"map[{' '.join(shown)}]"
        case list() | tuple():
            return f"[{' '.join(map(go_text, value))}]"
        case _:
            return str(value)


def _json_text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if not callable(item)}
    if callable(value):
        raise Mistake("it is a function")
    return _json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _join(items: Any, separator: str) -> str:
    if items is not None and not isinstance(items, list | tuple):
        raise Mistake(f"{go_text(items)!r} is not a list")
    return _text(separator).join(map(go_text, items or ()))


def _index(container: Any, *keys: Any) -> Any:
    """Return what is at ``keys``, one after the other; a key that a map does not have gives nothing, as in Go."""
    for key in keys:
        if isinstance(container, Mapping):
            container = container[key] if key in container else _zero(container)
        elif isinstance(container, Sequence) and not isinstance(container, str):
            if isinstance(key, bool) or not isinstance(key, int):
                raise Mistake(f"{go_text(key)!r} is not a position in a list")
            if not 0 <= key < len(container):
                raise Mistake(f"position {key} is out of range, there are {len(container)}")
            container = container[key]
        else:
            raise Mistake(f"{go_text(container)!r} is neither a map nor a list")
    return container


def _zero(container: Mapping[Any, Any]) -> Any:
    """Return what Go gives for a key that a map does not have: the zero of the type of its values."""
    return next((type(value)() for value in container.values() if value is not None), "")


def _len(value: Any) -> int:
    if not isinstance(value, Mapping | Sequence):
        raise Mistake(f"{go_text(value)!r} has no length")
    return len(value.encode()) if isinstance(value, str) else len(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Mistake(f"{go_text(value)!r} is not a text")
    return value


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Mistake(f"{go_text(value)!r} is not a number")
    return value


def _title(value: Any) -> str:
    """Return ``value`` with its first letter large, as Docker's ``title`` does."""
    text = _text(value)
    return text[:1].upper() + text[1:]


def _pad(value: Any, before: Any, after: Any) -> str:
    widths = (_number(before), _number(after))
    if max(widths) > WIDEST:
        raise Mistake(f"a width of {max(widths)}")
    return " " * widths[0] + _text(value) + " " * widths[1] if value else ""


def _split(value: Any, separator: Any) -> list[str]:
    """Return the parts of a text; its letters if there is no separator, as Go has it."""
    return _text(value).split(_text(separator)) if separator else list(_text(value))


def _println(*values: Any) -> str:
    return " ".join(map(go_text, values)) + "\n"


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise Mistake("it needs two values")
    return any(_same(first, other) for other in others)


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal; those of different types cannot be compared, as in Go, but with nil."""
    if one is None or other is None:
        return one is other
    if type(one) is not type(other):
        raise Mistake(f"{go_text(one)!r} and {go_text(other)!r} are of different types")
    return bool(one == other)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compared(one: Any, other: Any) -> bool:
        for value in (one, other):
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise Mistake(f"{go_text(value)!r} has no order")
        if isinstance(one, str) != isinstance(other, str):
            raise Mistake(f"{go_text(one)!r} and {go_text(other)!r} are of different types")
        return compare(one, other)

    return compared


def _slice(value: Any, *bounds: Any) -> Any:
    """Return a part of a list or text; what lies outside is refused, as in Go."""
    if not isinstance(value, str | list | tuple):
        raise Mistake(f"{go_text(value)!r} is neither a list nor a text")
    places = [0, len(value)]
    places[: len(bounds)] = map(_number, bounds)
    if len(places) > 2 or not 0 <= places[0] <= places[1] <= len(value):
        raise Mistake(f"there is no part {' '.join(map(go_text, bounds))} of {len(value)}")
    return value[places[0] : places[1]]


def _print(*values: Any) -> str:
    """Return the values in a row, with a space between two of which neither is a text (fmt.Sprint)."""
    shown = ""
    for index, value in enumerate(values):
        apart = index > 0 and not isinstance(value, str) and not isinstance(values[index - 1], str)
        shown += (" " if apart else "") + go_text(value)
    return shown


def first_that(wanted: bool, values: Iterable[Callable[[], Any]]) -> Any:
    """Return the first value whose truth is ``wanted``, else the last; those after it are not asked for."""
    value = None
    for ask in values:
        value = ask()
        if is_true(value) == wanted:
            break
    return value


def _without_arguments() -> Any:
    raise Mistake("it needs a value")


LAZY = {"and": False, "or": True}
"""Functions that look at their arguments one after the other, and the truth at which they stop."""


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "and": _without_arguments,
    "eq": _eq,
    "ge": _ordered(operator.ge),
    "gt": _ordered(operator.gt),
    "index": _index,
    "join": _join,
    "json": _json_text,
    "le": _ordered(operator.le),
    "len": _len,
    "lt": _ordered(operator.lt),
    "lower": lambda value: _text(value).lower(),
    "ne": lambda one, other: not _same(one, other),
    "not": lambda value: not is_true(value),
    "or": _without_arguments,
    "pad": _pad,
    "print": _print,
    "println": _println,
    "slice": _slice,
    "split": _split,
    "title": _title,
    "truncate": lambda value, length: _text(value)[: _number(length)],
    "upper": lambda value: _text(value).upper(),
}
"""Those of Docker (docker/cli ``templates.go``) and those of Go that its examples use."""
