"""What a container is asked to be: a value that goes into the journal, and the parsers of its ``run`` flags."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from posixpath import normpath

from netagent.errors import InvalidRequest
from netagent.model.ids import ContainerId


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """A directory or file of the host shown in the container. Both paths are absolute and normal."""

    source: str
    destination: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A file of the container whose text we own, such as ``/etc/hosts``."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """One container, complete enough to be made again from nothing.

    ``sandbox`` is the path of the network namespace to join, None the host's own. ``rootfs`` is the directory below
    the container's overlay, None the host's root. ``interactive`` keeps standard input open for a client. ``sysctls``
    are written in the container's namespaces; ``cap_add`` and ``cap_drop`` are capabilities, or ``ALL``.
    """

    id: ContainerId
    name: str
    command: tuple[str, ...]
    hostname: str
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[BindMount, ...] = ()
    files: tuple[TextFile, ...] = ()
    rootfs: str | None = None
    working_directory: str = "/"
    terminal: bool = False
    interactive: bool = False
    sandbox: str | None = None
    sysctls: tuple[tuple[str, str], ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()


def parse_environment(texts: Iterable[str], caller: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that ``-e`` flags set: ``K=V``, or ``K`` alone for the value that the ``caller`` has.

    A name that the caller does not have is left out, and the last of several flags wins, as in Docker.
    """
    variables: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or "\0" in text:
            raise InvalidRequest(f"invalid environment variable: {text!r}", hint="write NAME=VALUE or NAME")
        if equals:
            variables[name] = value
        elif name in caller:
            variables[name] = caller[name]
    return tuple(variables.items())


def parse_mounts(texts: Iterable[str]) -> tuple[BindMount, ...]:
    """Return the mounts that ``-v`` flags ask for, refusing two at one place."""
    mounts: dict[str, BindMount] = {}
    for text in texts:
        mount = parse_mount(text)
        if mount.destination in mounts:
            raise InvalidRequest(f"Duplicate mount point: {mount.destination}")
        mounts[mount.destination] = mount
    return tuple(mounts.values())


def parse_mount(text: str) -> BindMount:
    """Return the mount written as ``HOST:DIR``, ``HOST:DIR:ro`` or ``HOST:DIR:rw``; refusals in Docker's words."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise _bad_mount(text, "", hint="write HOST:DIR or HOST:DIR:ro")
    source, destination, mode = [*parts, "rw"][:3]
    if mode not in ("ro", "rw"):
        raise _bad_mount(text, f"invalid mode: {mode}", hint="the modes are ro and rw")
    if not source.startswith("/"):
        raise InvalidRequest(
            f"{source!r} is not the absolute path of a host directory",
            hint="If you intended to pass a host directory, use absolute path; named volumes do not exist here",
        )
    if not destination.startswith("/"):
        raise _bad_mount(text, f"invalid mount path: {destination!r} mount path must be absolute")
    if "\0" in text:
        raise _bad_mount(text, "a path holds a NUL byte")
    place = normal_path(destination)
    if place == "/":
        raise _bad_mount(text, "destination can't be '/'", hint="use --rootfs for the container's root")
    return BindMount(source=normal_path(source), destination=place, read_only=mode == "ro")


def parse_directory(text: str, *, what: str) -> str:
    """Return ``text`` if it is an absolute path, for ``what`` ("working directory", "root file system")."""
    if not text.startswith("/") or "\0" in text:
        raise InvalidRequest(f"the {what} {text!r} is invalid, it needs to be an absolute path")
    return normal_path(text)


def normal_path(path: str) -> str:
    """Return ``path`` without ``.``, ``..`` and doubled slashes; ``normpath`` itself lets a leading ``//`` stand."""
    return "/" + normpath(path).lstrip("/") if path.startswith("/") else normpath(path)


def _bad_mount(text: str, reason: str, *, hint: str = "") -> InvalidRequest:
    because = f": {reason}" if reason else ""
    return InvalidRequest(f"invalid volume specification: {text!r}{because}", hint=hint)
