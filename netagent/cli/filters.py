"""``--filter``: which networks or containers a command is about, in Docker's terms. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from netagent.errors import InvalidRequest

if TYPE_CHECKING:
    from netagent.v1.networks_pb2 import Network


class Labelled(Protocol):
    """What has labels."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels by name."""


T = TypeVar("T")
_L = TypeVar("_L", bound=Labelled)
Test: TypeAlias = Callable[[T], bool]

_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def is_builtin(network: "Network") -> bool:
    """Tell whether a network is one of those that are always there."""
    # Here, as all of the model would come with it for every command that lists something.
    from netagent.model.network import PREDEFINED

    return network.name in PREDEFINED and network.scope == "local"


def network_filter(texts: Iterable[str]) -> "Test[Network]":
    """Return the test for ``network ls`` (moby ``network/filter.go``)."""
    return all_of(
        texts,
        {
            "driver": lambda value: lambda network: network.driver == value,
            "id": lambda value: matching(value, lambda network: network.id),
            "label": labelled,
            "name": lambda value: matching(value, lambda network: network.name),
            "scope": _scoped,
            "type": _typed,
            "dangling": _dangling,
        },
        together=("label",),
    )


def prune_filter(texts: Iterable[str], *, now: datetime | None = None) -> "Test[Network]":
    """Return the test for ``network prune``."""
    moment = now or datetime.now(UTC)
    return all_of(
        texts,
        {"label": labelled, "label!": lambda value: _not(labelled(value)), "until": lambda v: _older(v, moment)},
        together=("label", "label!"),
    )


def all_of(
    texts: Iterable[str], makers: Mapping[str, Callable[[str], Test[T]]], *, together: tuple[str, ...]
) -> Test[T]:
    """Return the test that filters ask for. The same key given again is an "or", except ``together``; keys an "and"."""
    tests: dict[str, list[Test[T]]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals:
            raise InvalidRequest(f"invalid filter {text!r}", hint="a filter is KEY=VALUE")
        if key not in makers:
            raise InvalidRequest(f"invalid filter '{key}'", hint=f"filters are {', '.join(makers)}")
        tests.setdefault(key, []).append(makers[key](value.strip()))
    return lambda thing: all(
        (all if key in together else any)(test(thing) for test in group) for key, group in tests.items()
    )


def matching(pattern: str, text_of: Callable[[T], str]) -> Test[T]:
    """Return the test for a regular expression that is found anywhere in a text."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidRequest(f"invalid filter {pattern!r}: {error}", hint="it is a regular expression") from None
    return lambda thing: compiled.search(text_of(thing)) is not None


def labelled(text: str) -> Test[_L]:
    """Return the test for a label, or for one with this value."""
    key, equals, value = text.partition("=")
    return lambda thing: key in thing.labels and (not equals or thing.labels[key] == value)


def _scoped(value: str) -> "Test[Network]":
    if value not in ("local", "global", "swarm"):
        raise InvalidRequest(f"invalid filter 'scope={value}'", hint="local or global")
    return lambda network: network.scope == value


def _typed(value: str) -> "Test[Network]":
    if value not in ("custom", "builtin"):
        raise InvalidRequest(f"invalid filter: 'type'='{value}'", hint="custom or builtin")
    return lambda network: is_builtin(network) == (value == "builtin")


def _dangling(value: str) -> "Test[Network]":
    if value.lower() not in _BOOLEANS:
        raise InvalidRequest(f"invalid filter 'dangling={value}'", hint="true or false")
    wanted = _BOOLEANS[value.lower()]
    return lambda network: (not is_builtin(network) and not network.used_by) == wanted


def _not(test: Test[T]) -> Test[T]:
    return lambda thing: not test(thing)


def _older(text: str, now: datetime) -> "Test[Network]":
    """Return the test for ``until``: a length of time (24h, 1h30m), a date, an RFC 3339 time, or seconds since 1970."""
    limit = _moment(text, now)
    return lambda network: datetime.fromisoformat(network.created) < limit


def _moment(text: str, now: datetime) -> datetime:
    parts = _DURATION.findall(text)
    try:
        if parts and "".join(number + unit for number, unit in parts) == text:
            return now - timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
        if re.fullmatch(r"\d+(\.\d+)?", text) and "-" not in text:
            return datetime.fromtimestamp(float(text), UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            f"invalid filter 'until={text}'", hint="for example 24h, 1h30m, 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    return moment if moment.tzinfo else moment.astimezone()
