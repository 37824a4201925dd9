"""Floor 2, edges: credentials in PostgreSQL are sealed anew. asyncpg only by its connection."""

from __future__ import annotations

from receiver.store.postgres.connection import PostgresConnection
from receiver.store.seal import Seal
from receiver.store.verbs.secrets import COLUMNS, older_than, sealed_anew


def take_over(connection: PostgresConnection, seal: Seal) -> bool:
    """Seal anew what is in clear, or by an older key; whether there was any. One transaction.

    The table is rewritten after it, since an UPDATE leaves the old rows in their pages. The
    server's log and backups keep them: rotate what stood in clear.
    """
    if not older_than(connection, seal):
        return False
    connection.execute("BEGIN")
    try:
        _seal_all(connection, seal)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("VACUUM FULL endpoints")
    return True


def _seal_all(connection: PostgresConnection, seal: Seal) -> None:
    rows = connection.execute(
        f"SELECT id, {', '.join(COLUMNS)} FROM endpoints{connection.for_update('id')}"
    ).fetchall()
    connection.executemany(
        f"UPDATE endpoints SET {' = ?, '.join(COLUMNS)} = ? WHERE id = ?",
        [
            (
                *(
                    sealed_anew(seal, number, column, text)
                    for column, text in zip(COLUMNS, texts, strict=True)
                ),
                number,
            )
            for number, *texts in rows
        ],
    )
