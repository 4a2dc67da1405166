"""Room on the disk that is kept for giving things back: what a full disk must not prevent.

A file of fixed size lies beside the journal. When the disk is nearly full it goes before something is removed, so that
the removal can be written; until there is room to lay it down anew, nothing is written that takes more.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

RESERVE_BYTES = 1 << 20
"""Some hundred removals of several pages each, written to the write-ahead log."""
NEARLY_FULL_BYTES = RESERVE_BYTES // 4


class Reserve:
    """One journal's reserve, empty while it is given away. A disk that was too small from the start has none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        size = path.stat().st_size if path.exists() else -1
        self._is_given = size == 0
        self._is_laid = size > 0 or self._lay()
        self._is_given &= not self._is_laid

    def restore(self) -> bool:
        """Lay it down anew if it was given away; tell whether there is room for what is not a removal."""
        if self._is_given and self._lay():
            _log.info("there is room on the disk of %s again", self._path.parent)
            self._is_given, self._is_laid = False, True
        return not self._is_given

    def give_way(self) -> None:
        """Make room for a removal if the disk is nearly full."""
        if not self._is_laid or self._has_room():
            return
        _log.warning("the disk of %s is full: only removals are written from now on", self._path.parent)
        os.truncate(self._path, 0)
        self._is_given, self._is_laid = True, False

    def _has_room(self) -> bool:
        room = os.statvfs(self._path.parent)
        if room.f_bavail * room.f_frsize >= NEARLY_FULL_BYTES:
            return True
        # What is left for root alone is not counted there, and may or may not be for us.
        probe = self._take(NEARLY_FULL_BYTES)
        if probe is not None:
            probe.unlink()
        return probe is not None

    def _lay(self) -> bool:
        """Take the room; tell whether there was that much and a little more."""
        laid = self._take(RESERVE_BYTES + NEARLY_FULL_BYTES)
        if laid is None:
            return False
        os.truncate(laid, RESERVE_BYTES)
        laid.rename(self._path)
        return True

    def _take(self, size: int) -> Path | None:
        """Return a file of ``size`` bytes that are there, or None."""
        beside = self._path.with_suffix(".part")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            return None
        return beside
