"""``ps --filter``: which containers are listed, in Docker's terms (moby ``daemon/list.go``). Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from netagent.cli.bindings import bindings_of
from netagent.cli.filters import Test, all_of, labelled, matching
from netagent.errors import InvalidRequest, NotFound
from netagent.model.ids import short
from netagent.model.port_grammar import parse_exposed

if TYPE_CHECKING:
    from netagent.v1.containers_pb2 import Container

_STATES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")


def asks_for_stopped(texts: Iterable[str]) -> bool:
    """Tell whether filters are about containers that do not run, so that ``-a`` goes without saying."""
    return any(text.partition("=")[0].strip().lower() == "status" for text in texts)


def container_filter(texts: Iterable[str], known: "Sequence[Container]") -> "Test[Container]":
    """Return the test for ``ps``; ``known`` are the containers among which ``before`` and ``since`` find theirs."""
    return all_of(
        texts,
        {
            "id": lambda value: matching(value, lambda container: container.id),
            "name": _named,
            "label": labelled,
            "status": _in_state,
            "exited": _ended_with,
            "network": _connected_to,
            "publish": lambda value: _with_port("publish", value, _published),
            "expose": lambda value: _with_port("expose", value, _exposed),
            "before": lambda value: _created(value, known, lambda time, other: time < other),
            "since": lambda value: _created(value, known, lambda time, other: time > other),
        },
        together=("label",),
    )


def _named(pattern: str) -> "Test[Container]":
    # Docker's names begin with a slash, which people write or leave out.
    return matching(pattern.replace("^/", "^").removeprefix("/"), lambda container: container.name)


def _in_state(value: str) -> "Test[Container]":
    if value not in _STATES:
        raise InvalidRequest(f"invalid filter 'status={value}'", hint=f"states are {', '.join(_STATES)}")
    return lambda container: container.state == value


def _ended_with(value: str) -> "Test[Container]":
    if not value.isdecimal() or not value.isascii():
        raise InvalidRequest(f"invalid filter 'exited={value}'", hint="an exit status, for example 0")
    wanted = int(value)
    return lambda container: container.state == "exited" and container.exit_code == wanted


def _connected_to(value: str) -> "Test[Container]":
    def test(container: "Container") -> bool:
        if container.network_mode == value:
            return True
        return any(value in (e.network_name, e.network_id, short(e.network_id)) for e in container.endpoints)

    return test


def _with_port(key: str, text: str, ports_of: "Callable[[Container], set[str]]") -> "Test[Container]":
    try:
        mappings = parse_exposed((text,))
    except InvalidRequest:
        raise InvalidRequest(f"invalid filter {f'{key}={text}'!r}", hint="PORT[-END][/PROTO]") from None
    wanted = {f"{port}/{mapping.protocol}" for mapping in mappings for port in mapping.container_ports}
    return lambda container: not wanted.isdisjoint(ports_of(container))


def _published(container: "Container") -> set[str]:
    return {f"{binding.host_port}/{binding.protocol}" for binding in bindings_of(container)}


def _exposed(container: "Container") -> set[str]:
    return {*container.exposed, *(binding.key for binding in bindings_of(container))}


def _created(name: str, known: "Sequence[Container]", holds: Callable[[str, str], bool]) -> "Test[Container]":
    other = next((c for c in known if name and (c.name == name or c.id.startswith(name))), None)
    if other is None:
        raise NotFound(f"No such container: {name}", hint="netagent ps -a shows those there are")
    return lambda container: holds(container.created, other.created)
