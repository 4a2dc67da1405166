"""The file that keeps a mirror's last complete state, so that an agent knows its peers while etcd is down.

msgpack, written aside, synced and renamed into place. A file that cannot be read is set aside as ``*.corrupt``.
"""

import logging
import os
from pathlib import Path

import msgspec

from netagent.reconcile.ports import StoreEntry

_log = logging.getLogger(__name__)

VERSION = 1


class MirrorState(msgspec.Struct, frozen=True, kw_only=True):
    """All entries below ``prefix`` as of ``revision`` of the store ``cluster_id``."""

    version: int = VERSION
    cluster_id: str
    prefix: str
    revision: int
    entries: list[tuple[str, bytes, int]]

    @classmethod
    def of(cls, entries: list[StoreEntry], *, cluster_id: str, prefix: str, revision: int) -> "MirrorState":
        """Return the state that holds ``entries``."""
        rows = [(entry.key, entry.value, entry.revision) for entry in entries]
        return cls(cluster_id=cluster_id, prefix=prefix, revision=revision, entries=rows)

    def store_entries(self) -> list[StoreEntry]:
        """Return the entries as the store would."""
        return [StoreEntry(key=key, value=value, revision=revision) for key, value, revision in self.entries]


def write_mirror_file(path: Path, state: MirrorState) -> None:
    """Put ``state`` into ``path`` so that a crash at any point leaves the old file or the new one. Raises OSError."""
    aside = path.with_name(path.name + ".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.msgpack.encode(state))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_mirror_file(path: Path, *, prefix: str) -> MirrorState | None:
    """Return the state in ``path``, or None if there is none that is of use."""
    try:
        state = msgspec.msgpack.decode(path.read_bytes(), type=MirrorState)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("cannot read %s: %s; starting without it", path, error)
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        aside = path.with_name(path.name + ".corrupt")
        _log.warning("%s is damaged (%s); set aside as %s", path, error, aside)
        path.replace(aside)
        return None
    if state.version != VERSION or state.prefix != prefix:
        _log.warning("%s is of version %d for %s; starting without it", path, state.version, state.prefix)
        return None
    return state
