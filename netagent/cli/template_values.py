"""What templates do with values: Go's truth and text, and the functions of Docker's ``--format``. Pure."""

import json as _json
from collections.abc import Callable, Mapping, Sequence
from typing import Any


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
    return " " * _number(before) + _text(value) + " " * _number(after) if value else ""


def _println(*values: Any) -> str:
    return " ".join(map(go_text, values)) + "\n"


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise Mistake("it needs two values")
    return any(first == other for other in others)


def _and(first: Any, *others: Any) -> Any:
    return next((value for value in (first, *others) if not is_true(value)), (first, *others)[-1])


def _or(first: Any, *others: Any) -> Any:
    return next((value for value in (first, *others) if is_true(value)), (first, *others)[-1])


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "and": _and,
    "eq": _eq,
    "index": _index,
    "join": _join,
    "json": _json_text,
    "len": _len,
    "lower": lambda value: _text(value).lower(),
    "ne": lambda first, second: first != second,
    "not": lambda value: not is_true(value),
    "or": _or,
    "pad": _pad,
    "print": lambda *values: "".join(map(go_text, values)),
    "println": _println,
    "split": lambda value, separator: _text(value).split(_text(separator)),
    "title": _title,
    "truncate": lambda value, length: _text(value)[: _number(length)],
    "upper": lambda value: _text(value).upper(),
}
"""Those of Docker (docker/cli ``templates.go``) and those of Go that its examples use."""
