"""Floor 2, edges: numbered SQL files, applied in one transaction together. sqlite3 only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from importlib import resources
from typing import Final

from receiver.errors import CannotStart, SchemaTooNew

ENGINE: Final = f"SQLite {sqlite3.sqlite_version}"
VERSION: Final = sqlite3.sqlite_version_info
APPLICATION_ID: Final = 0x5265656C  # "Reel": what `file` and a stranger's eyes can check


def migrations() -> list[tuple[int, str]]:
    """(number, SQL text) of every migration, in order."""
    folder = resources.files("receiver.store").joinpath("sql/sqlite")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.partition("_")[0]), folder.joinpath(name).read_text()) for name in found]


def version_of(connection: sqlite3.Connection) -> int:
    """The schema's version; 0 for an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def check_version(connection: sqlite3.Connection) -> int:
    """The schema's version. Raises SchemaTooNew; reads only."""
    current, newest = version_of(connection), migrations()[-1][0]
    if current > newest:
        raise SchemaTooNew(
            f"The database has schema {current}, this release knows {newest}. Install the release"
            " that wrote it, or restore a backup.",
            found=current,
            known=newest,
        )
    return current


def check_owner(connection: sqlite3.Connection) -> None:
    """Raises SchemaTooNew, or CannotStart for a database of another program; reads only."""
    check_version(connection)
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and owner != APPLICATION_ID:
        raise CannotStart(
            "The database belongs to another program. Name another file in DATABASE_URL.",
            application_id=owner,
        )


def migrate(connection: sqlite3.Connection) -> list[int]:
    """Bring the database to this release's schema; returns the numbers applied.

    All of them or none: a database that can't be brought here is still the earlier release's.
    Raises SchemaTooNew, before anything is touched, for a database of a later release.
    """
    current, known = check_version(connection), migrations()
    pending = [(number, text) for number, text in known if number > current]
    if pending:
        _apply(connection, pending)
    return [number for number, _ in pending]


def make_shrinkable(connection: sqlite3.Connection) -> None:
    """Rewrite a file that can't give pages back, since it was made before retention came.

    Needs as much free disk as the file has bytes, twice. Does nothing to a file that can.
    """
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if not connection.execute("PRAGMA auto_vacuum").fetchone()[0]:
        connection.execute("VACUUM")


def _apply(connection: sqlite3.Connection, pending: Sequence[tuple[int, str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number, text in pending:
            for statement in _statements(text):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _statements(text: str) -> list[str]:
    # executescript would commit first, and so tear a migration in two.
    found, current = [], ""
    for line in text.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            found.append(current)
            current = ""
    return found
