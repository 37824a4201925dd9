"""Floor 2, edges: credentials in a file are sealed anew, and leave no trace. sqlite3 only."""

from __future__ import annotations

from receiver.store.seal import Seal
from receiver.store.sqlite.engine import Connection
from receiver.store.verbs.secrets import COLUMNS, older_than, sealed_anew


def present(connection: Connection) -> list[str]:
    """The columns that are there: an earlier release wrote not all of them, an empty file none."""
    table = connection.execute("SELECT name FROM pragma_table_info('endpoints')").fetchall()
    return [column for column in COLUMNS if (column,) in table]


def take_over(connection: Connection, seal: Seal) -> bool:
    """Seal anew what is in clear, or by an older key; whether there was any. One transaction.

    The table is written anew, and what stood there is overwritten: an UPDATE would leave the old
    text in the free room of its page. Free pages, where earlier texts may stand, leave the file.
    """
    older = older_than(connection, seal)
    if not older:
        return False
    (before,) = connection.execute("PRAGMA secure_delete").fetchone()
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("BEGIN IMMEDIATE")
    try:
        _write_anew(connection, seal)
        if any(isinstance(kept, str) for kept in older):
            _drop_free_pages(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute(f"PRAGMA secure_delete = {before}")
    return True


def _write_anew(connection: Connection, seal: Seal) -> None:
    cursor = connection.execute("SELECT * FROM endpoints ORDER BY id")
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    for row in rows:
        for column in COLUMNS:
            row[column] = sealed_anew(seal, row["id"], column, row[column])
    connection.execute("DELETE FROM endpoints")
    marks = ", ".join("?" * len(names))
    connection.executemany(
        f"INSERT INTO endpoints ({', '.join(names)}) VALUES ({marks})",
        [tuple(row.values()) for row in rows],
    )


def _drop_free_pages(connection: Connection) -> None:
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    for _ in range(pages):
        connection.execute("PRAGMA incremental_vacuum(1)").close()
