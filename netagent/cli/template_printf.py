"""``printf`` of templates: the verbs of Go's fmt for texts, numbers and truth values, and %v for everything."""

import json
import re
from collections.abc import Iterator
from typing import Any

from netagent.cli.template_values import WIDEST, Mistake, go_text

_DIRECTIVE = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>[0-9]{1,4}|\*)?(?:\.(?P<precision>[0-9]{0,4}))?(?P<verb>.)?", re.DOTALL
)
_INTEGERS = {"d": "d", "x": "x", "X": "X", "o": "o", "b": "b"}


def printf(template: Any, *values: Any) -> str:
    """Return ``values`` as ``template`` arranges them; Mistake where Go would print ``%!verb``."""
    if not isinstance(template, str):
        raise Mistake(f"{go_text(template)!r} is not a text")
    rest = iter(values)
    text = _DIRECTIVE.sub(lambda match: _directive(match, rest), template)
    if (unused := next(rest, rest)) is not rest:
        raise Mistake(f"{go_text(unused)!r} has no place in {template!r}")
    return text


def _directive(match: re.Match[str], rest: Iterator[Any]) -> str:
    verb = match["verb"]
    if verb == "%" and match[0] == "%%":
        return "%"
    if verb is None or not verb.strip():
        raise Mistake("a % has no verb; %% stands for itself")
    width = _next_number(rest) if match["width"] == "*" else int(match["width"] or 0)
    if width > WIDEST:
        raise Mistake(f"a width of {width}")
    value = _next(rest, match[0])
    text = _format(verb, value, match["flags"], match["precision"])
    if "-" in match["flags"]:
        return text.ljust(width)
    if "0" in match["flags"] and verb not in "svqt":
        sign = text[:1] if text[:1] in "+-" else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _format(verb: str, value: Any, flags: str, precision: str | None) -> str:
    if verb in "sv":
        if verb == "s" and isinstance(value, bool | int | float):
            raise Mistake(f"%s is for texts, {go_text(value)} is none")
        text = go_text(value)
        return text if precision is None else text[: int(precision or 0)]
    if verb == "q" and isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if verb == "t" and isinstance(value, bool):
        return go_text(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if verb in _INTEGERS and is_integer:
        return format(value, ("+" if "+" in flags else "") + _INTEGERS[verb])
    if verb in "feg" and isinstance(value, float):
        digits = 6 if precision is None else int(precision or 0)
        return format(value, f"{'+' if '+' in flags else ''}.{digits}{verb}")
    if verb == "c" and is_integer and 0 <= value < 0x110000:
        return chr(value)
    raise Mistake(f"%{verb} cannot show {go_text(value)!r}")


def _next(rest: Iterator[Any], directive: str) -> Any:
    for value in rest:
        return value
    raise Mistake(f"there is no value for {directive}")


def _next_number(rest: Iterator[Any]) -> int:
    value = _next(rest, "the width *")
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Mistake(f"{go_text(value)!r} is no width")
    return value
