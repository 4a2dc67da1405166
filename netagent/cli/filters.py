"""``--filter``: which networks a command is about, in Docker's terms (moby ``network/filter.go``). Pure."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeAlias

from netagent.errors import InvalidRequest
from netagent.model.network import PREDEFINED

if TYPE_CHECKING:
    from netagent.v1.networks_pb2 import Network

Test: TypeAlias = "Callable[[Network], bool]"

_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def is_builtin(network: "Network") -> bool:
    """Tell whether a network is one of those that are always there."""
    return network.name in PREDEFINED and network.scope == "local"


def network_filter(texts: Iterable[str]) -> Test:
    """Return the test for ``network ls``: the same key given again is an "or", except for labels; keys are an "and"."""
    return _all_of(
        texts,
        {
            "driver": lambda value: lambda network: network.driver == value,
            "id": lambda value: _matching(value, lambda network: network.id),
            "label": _labelled,
            "name": lambda value: _matching(value, lambda network: network.name),
            "scope": _scoped,
            "type": _typed,
            "dangling": _dangling,
        },
        together=("label",),
    )


def prune_filter(texts: Iterable[str], *, now: datetime | None = None) -> Test:
    """Return the test for ``network prune``."""
    moment = now or datetime.now(UTC)
    return _all_of(
        texts,
        {"label": _labelled, "label!": lambda value: _not(_labelled(value)), "until": lambda v: _older(v, moment)},
        together=("label", "label!"),
    )


def _all_of(texts: Iterable[str], makers: dict[str, Callable[[str], Test]], *, together: tuple[str, ...]) -> Test:
    tests: dict[str, list[Test]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals:
            raise InvalidRequest(f"invalid filter {text!r}", hint="a filter is KEY=VALUE")
        if key not in makers:
            raise InvalidRequest(f"invalid filter '{key}'", hint=f"filters are {', '.join(makers)}")
        tests.setdefault(key, []).append(makers[key](value.strip()))
    return lambda network: all(
        (all if key in together else any)(test(network) for test in group) for key, group in tests.items()
    )


def _matching(pattern: str, text_of: "Callable[[Network], str]") -> Test:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InvalidRequest(f"invalid filter {pattern!r}: {error}", hint="it is a regular expression") from None
    return lambda network: compiled.search(text_of(network)) is not None


def _labelled(text: str) -> Test:
    key, equals, value = text.partition("=")
    return lambda network: key in network.labels and (not equals or network.labels[key] == value)


def _scoped(value: str) -> Test:
    if value not in ("local", "global", "swarm"):
        raise InvalidRequest(f"invalid filter 'scope={value}'", hint="local or global")
    return lambda network: network.scope == value


def _typed(value: str) -> Test:
    if value not in ("custom", "builtin"):
        raise InvalidRequest(f"invalid filter: 'type'='{value}'", hint="custom or builtin")
    return lambda network: is_builtin(network) == (value == "builtin")


def _dangling(value: str) -> Test:
    if value.lower() not in _BOOLEANS:
        raise InvalidRequest(f"invalid filter 'dangling={value}'", hint="true or false")
    wanted = _BOOLEANS[value.lower()]
    return lambda network: (not is_builtin(network) and not network.used_by) == wanted


def _not(test: Test) -> Test:
    return lambda network: not test(network)


def _older(text: str, now: datetime) -> Test:
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
