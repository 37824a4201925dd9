"""Floor 2, edges: a copy of a database: is it whole, and whose is it. sqlite3 only.

A copy is looked at as a file that nobody writes (`immutable`), so that looking at it leaves no log
and no index of one beside it, and works on a disk that can't be written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from receiver.errors import ReelhookError
from receiver.store.migrate import APPLICATION_ID, migrations, version_of

STEPS: Final = 100_000  # of SQLite's machine between looks whether it shall end


class NotWhole(ReelhookError):
    """A copy that is damaged, incomplete, or of something else."""

    code = "backup_not_whole"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database holds: its rows by table, and of which receiver it is."""

    instance: str
    schema_version: int
    counts: dict[str, int]


def contents(
    path: Path, *, thorough: bool, is_over: Callable[[], bool] = lambda: False
) -> Contents:
    """What a copy holds, after a check of every page. Raises NotWhole.

    `thorough` holds each index against its table as well, which takes several times as long. It
    ends early, as a failure, when `is_over` says so.
    """
    try:
        with _opened(f"file:{quote(str(path))}?mode=ro&immutable=1") as connection:
            connection.set_progress_handler(is_over, STEPS)
            return _contents(connection, path, thorough)
    except sqlite3.Error as error:
        raise NotWhole(f"{path} can't be read as a database: {error}.", path=str(path)) from error


def copy_whole(source: Path, target: Path) -> None:
    """Copy a database that nobody has open, and the log beside it. Raises NotWhole, OSError."""
    immutable = "" if _has_log(source) else "&immutable=1"
    try:
        with (
            _opened(f"file:{quote(str(source))}?mode=ro{immutable}") as found,
            closing(sqlite3.connect(target, isolation_level=None)) as copied,
        ):
            copied.execute("PRAGMA journal_mode = OFF")
            found.backup(copied)
    except sqlite3.Error as error:
        raise NotWhole(f"{source} can't be copied: {error}.", path=str(source)) from error


def instance_of(path: Path) -> str | None:
    """Of which receiver a database is, as far as that can be read."""
    try:
        with _opened(f"file:{quote(str(path))}?mode=ro&immutable=1") as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = 'instance'").fetchone()
            return None if row is None else str(row[0])
    except sqlite3.Error:
        return None


def _has_log(path: Path) -> bool:
    log = Path(f"{path}-wal")
    return log.exists() and log.stat().st_size > 0


@contextmanager
def _opened(uri: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        # A file may come from anywhere, and its schema is code.
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        yield connection


def _contents(connection: sqlite3.Connection, path: Path, thorough: bool) -> Contents:
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    version, newest = version_of(connection), migrations()[-1][0]
    if owner != APPLICATION_ID or not version:
        raise NotWhole(f"{path} is no database of a receiver.", path=str(path))
    if version > newest:
        raise NotWhole(
            f"{path} has schema {version}, this release knows {newest}: install the release that"
            " made it.",
            path=str(path),
            found=version,
            known=newest,
        )
    check = "integrity_check" if thorough else "quick_check"
    (found,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    if found != "ok":
        raise NotWhole(f"{path} is damaged: {found}.", path=str(path))
    row = connection.execute("SELECT value FROM meta WHERE name = 'instance'").fetchone()
    if row is None:
        raise NotWhole(f"{path} was never opened by a receiver.", path=str(path))
    return Contents(row[0], version, _counts(connection))


def _counts(connection: sqlite3.Connection) -> dict[str, int]:
    """The rows of our tables: what begins with an underscore is Litestream's."""
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        " AND substr(name, 1, 1) <> '_' ORDER BY name"
    ).fetchall()
    return {
        name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in rows
    }
