"""Floor 2, edges: numbered SQL files for PostgreSQL, under a lock. asyncpg only by its connection.

A release may run beside the next one while a deployment goes on, so a schema that is ahead is taken
as long as it says that this release's number can work with it (`compatible_from` in `meta`, which a
migration raises when it takes something away).
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from receiver.errors import CannotStart, SchemaTooNew
from receiver.store.connection import Held
from receiver.store.postgres.connection import PostgresConnection

MOVING: Final = "store_move"  # a table that is there while a store is moved into the database
_VERSIONS: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     BIGINT PRIMARY KEY,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
)
"""
# Other programs have a table of that name as well.
IS_OURS: Final = (
    "SELECT count(*) = 2 FROM pg_attribute WHERE NOT attisdropped"
    " AND (attrelid, attname) IN ((to_regclass('schema_migrations'), 'number'),"
    " (to_regclass('meta'), 'value'))"
)
_FOREIGN: Final = (
    "SELECT relname FROM pg_class c WHERE relnamespace = to_regnamespace(current_schema())"
    " AND relkind IN ('r', 'p') AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid"
    " AND d.classid = 'pg_class'::regclass AND d.deptype = 'e') ORDER BY relname LIMIT 3"
)
# What takes long may take long, whatever the role is set to.
_BEGIN: Final = "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"


def migrations() -> list[tuple[int, str]]:
    """(number, SQL text) of every migration, in order."""
    folder = resources.files("receiver.store").joinpath("sql/postgres")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(int(name.partition("_")[0]), folder.joinpath(name).read_text()) for name in found]


def version_of(connection: PostgresConnection) -> int:
    """The schema's version; 0 for a database that has none of ours."""
    (ours,) = connection.execute(IS_OURS).fetchone()
    if not ours:
        return 0
    return int(
        connection.execute("SELECT coalesce(max(number), 0) FROM schema_migrations").fetchone()[0]
    )


def migrate(connection: PostgresConnection, *, moving: bool = False) -> list[int]:
    """Bring the database to this release's schema; returns the numbers applied.

    All of them or none, and one process at a time. Raises SchemaTooNew, and CannotStart for a
    database of another program, and for one that a store is `moving` into, to whoever does not
    move it.
    """
    known = migrations()
    connection.run(_BEGIN)
    try:
        connection.hold(Held.SCHEMA)
        current = version_of(connection)
        _check(connection, current, known[-1][0])
        if not current:
            _check_empty(connection)
        if not moving:
            _check_moved(connection)
        pending = [(number, text) for number, text in known if number > current]
        if pending:
            connection.execute(_VERSIONS)
        for number, text in pending:
            connection.run(text)
            connection.execute("INSERT INTO schema_migrations (number) VALUES (?)", (number,))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return [number for number, _ in pending]


def _check_empty(connection: PostgresConnection) -> None:
    (schema,) = connection.execute("SELECT current_schema()").fetchone()
    if schema is None:
        raise CannotStart("The role has no schema to make tables in: look at its search_path.")
    tables = [table for (table,) in connection.execute(_FOREIGN)]
    if tables:
        raise CannotStart(
            f"The database has tables of another program ({', '.join(tables)}), and none of ours."
            " Name an empty one in DATABASE_URL.",
            tables=tables,
        )


def _check(connection: PostgresConnection, current: int, newest: int) -> None:
    if current <= newest:
        return
    row = connection.execute("SELECT value FROM meta WHERE name = 'compatible_from'").fetchone()
    if row is None or int(row[0]) > newest:
        raise SchemaTooNew(
            f"The database has schema {current}, this release knows {newest}. Install the release"
            " that wrote it, or restore a backup.",
            found=current,
            known=newest,
        )


def _check_moved(connection: PostgresConnection) -> None:
    if connection.execute(f"SELECT to_regclass('{MOVING}') IS NOT NULL").fetchone()[0]:
        raise CannotStart(
            "A store is being moved into this database, and is not all there. Run `reelhook"
            " migrate-store` again: it goes on where it stopped."
        )
