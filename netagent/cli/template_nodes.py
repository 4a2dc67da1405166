"""The parts of a parsed template: expressions that give a value, and parts that write one. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from netagent.cli.template_values import LAZY, Mistake, first_that, go_text, is_true
from netagent.errors import InvalidRequest

ROUNDS_LIMIT = 1_000_000
"""How often the ranges of a template may go round in all: nested ones multiply."""

TEXT_LIMIT = 1 << 20
"""Characters of what a function may give: ``print $a $a`` in a range doubles each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What an expression sees: the cursor ``.``, and the variables, of which ``$`` is the whole.

    A variable is a list of one value, which a block shares with the blocks around it; so is ``rounds``, how often
    ranges may still go round.
    """

    dot: Any
    variables: dict[str, list[Any]]
    rounds: list[int] = field(default_factory=lambda: [ROUNDS_LIMIT])

    def inner(self, dot: Any, names: Iterable[str] = (), values: Iterable[Any] = ()) -> "Scope":
        """Return the scope of a block with variables of its own beside those that it can see."""
        own = {name: [value] for name, value in zip(names, values, strict=True)}
        return Scope(dot=dot, variables={**self.variables, **own}, rounds=self.rounds)


class Leave(Exception):
    """A ``break`` or, with ``goes_on``, a ``continue`` on its way to its range."""

    def __init__(self, *, goes_on: bool) -> None:
        super().__init__()
        self.goes_on = goes_on


Expression: TypeAlias = Callable[[Scope], Any]
Part: TypeAlias = Callable[[Scope, list[str]], None]


def mistake_at(source: str, at: int, words: str) -> InvalidRequest:
    """Return the error for a place in a template, named as line and column from 1."""
    line = source.count("\n", 0, at) + 1
    column = at - (source.rfind("\n", 0, at) + 1) + 1
    return InvalidRequest(
        f"invalid --format at {line}:{column}: {words}", hint="netagent's forms of Go templates are in docs/cli.md"
    )


def look_up(value: Any, name: str, fail: Callable[[str], InvalidRequest]) -> Any:
    """Return a field of a value; the error of ``fail`` if there is none."""
    if isinstance(value, Mapping) and name in value:
        return value[name]
    if isinstance(value, Mapping):
        known = ", ".join(sorted(map(str, value))) or "none"
        raise fail(f"there is no field {name!r}; there are {known}")
    raise fail(f"there is no field {name!r} in {go_text(value)!r}, which has no fields")


def constant(value: Any) -> Expression:
    """Return the expression that is always ``value``."""
    return lambda _: value


def literal(text: str) -> Part:
    """Return the part that writes ``text``."""
    return lambda _, written: written.append(text)


def write(value: Expression) -> Part:
    """Return the part that writes a value as Go prints it."""
    return lambda scope, written: written.append(go_text(value(scope)))


def assign(name: str, value: Expression, *, new: bool) -> Part:
    """Return the part that sets a variable: a ``new`` one (``:=``), or one that is there (``=``)."""

    def assign(scope: Scope, _: list[str]) -> None:
        if new:
            scope.variables[name] = [value(scope)]
        else:
            scope.variables[name][0] = value(scope)

    return assign


def leave(*, goes_on: bool) -> Part:
    """Return the part that ends a range, or with ``goes_on`` goes to its next item."""

    def leave(_: Scope, __: list[str]) -> None:
        raise Leave(goes_on=goes_on)

    return leave


def call_of(
    name: str,
    function: Callable[..., Any] | None,
    value: Expression | None,
    arguments: list[Expression],
    fail: Callable[[str], InvalidRequest],
) -> Expression:
    """Return the call of a known function, or of what ``value`` is; a value without arguments stands for itself."""

    def call(scope: Scope) -> Any:
        called = function
        if name in LAZY and arguments:
            return first_that(LAZY[name], [partial(argument, scope) for argument in arguments])
        if called is None:
            assert value is not None
            called = value(scope)
            if not callable(called):
                if arguments:
                    raise fail(f"{name} is no function and takes no argument")
                return called
        try:
            result = called(*(argument(scope) for argument in arguments))
            if isinstance(result, str) and len(result) > TEXT_LIMIT:
                raise fail(f"{name}: a text of {len(result)} characters")
            return result
        except Mistake as mistake:
            raise fail(f"{name}: {mistake}") from mistake
        except TypeError as error:
            raise fail(f"{name}: wrong number or kind of arguments") from error

    return call


def range_over(
    names: list[str],
    value: Expression,
    inside: list[Part],
    otherwise: list[Part],
    fail: Callable[[str], InvalidRequest],
) -> Part:
    """Return ``range``: ``inside`` for each item of a list, or of a map by its sorted keys; ``otherwise`` if none."""

    def each(scope: Scope, written: list[str]) -> None:
        items = value(scope)
        if isinstance(items, Mapping):
            pairs = sorted(items.items())
        elif isinstance(items, list | tuple) or items is None:
            pairs = list(enumerate(items or ()))
        else:
            raise fail(f"range cannot go over {go_text(items)!r}")
        for key, item in pairs:
            scope.rounds[0] -= 1
            if scope.rounds[0] < 0:
                raise fail(f"its ranges go round more than {ROUNDS_LIMIT} times")
            inner = scope.inner(item, names, (key, item)[-len(names) :] if names else ())
            try:
                for part in inside:
                    part(inner, written)
            except Leave as left:
                if not left.goes_on:
                    break
        if not pairs:
            for part in otherwise:
                part(scope, written)

    return each


def choose(names: list[str], value: Expression, inside: list[Part], otherwise: list[Part], *, moves: bool) -> Part:
    """Return ``if``, or ``with`` if the cursor ``moves`` to the value."""

    def choose(scope: Scope, written: list[str]) -> None:
        found = value(scope)
        inner = scope.inner(found if moves and is_true(found) else scope.dot, names, (found,) * len(names))
        for part in inside if is_true(found) else otherwise:
            part(inner, written)

    return choose
