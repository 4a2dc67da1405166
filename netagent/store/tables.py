"""What our files of SQLite have in common: a layout with a number, and records that a later version may extend."""

import sqlite3

from netagent.errors import EnvironmentProblem


def present_record(database: sqlite3.Connection, select: str, identity: str) -> bytes | None:
    """Return the record of a row, None if there is none: ``select`` asks for it by its id."""
    row = database.execute(select, (identity,)).fetchone()
    return bytes(row[0]) if row else None


def layout_of(database: sqlite3.Connection) -> int:
    """Return the number of a file's layout, 0 of a new one."""
    (layout,) = database.execute("PRAGMA user_version").fetchone()
    return int(layout)


def unknown_layout(what: str, found: int, known: int) -> EnvironmentProblem:
    """Return the error for a file, called ``what``, that this version must not touch."""
    return EnvironmentProblem(
        f"{what} has layout {found}, this agent knows {known}", hint="use the netagent version that wrote it"
    )
