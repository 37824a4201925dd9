"""Floor 2, edges: what requests with an Idempotency-Key were answered. stdlib only.

`changed` is set in the transaction of the change itself (`receiver.store.verbs.audit`). So a
receiver that ends between a change and its answer never makes the change a second time.
"""

from __future__ import annotations

from typing import Final

from receiver.access import OnceKey
from receiver.errors import AnswerLost, KeyInUse, KeyReused
from receiver.store.connection import Connection, Held
from receiver.store.protocol import Answer, Once
from receiver.store.writer import Transaction

STEP: Final = 500  # rows that one transaction forgets

_OPEN: Final = "owner = ? AND key = ? AND status IS NULL"


def begin(tx: Transaction, once: Once) -> Answer | None:
    """The answer to repeat, or None for the first request, whose turn it is now."""
    tx.connection.hold(Held.ANSWERS)
    found = tx.connection.execute(
        "SELECT asked, begun_at, changed, status, answer FROM answers WHERE owner = ? AND key = ?"
        " AND begun_at > ?",
        (once.key.owner, once.key.key, once.now - once.kept),
    ).fetchone()
    if found is not None:
        asked, begun_at, changed, status, text = found
        if asked != once.asked:
            raise KeyReused
        if status is not None:
            return Answer(status, text)
        if changed:
            raise AnswerLost
        if begun_at + once.lease > once.now:
            raise KeyInUse
    tx.connection.execute(
        "INSERT INTO answers (owner, key, asked, begun_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (owner, key) DO UPDATE SET asked = excluded.asked,"
        " begun_at = excluded.begun_at, changed = 0, status = NULL, answer = NULL",
        (once.key.owner, once.key.key, once.asked, once.now),
    )
    return None


def keep(tx: Transaction, kept: tuple[OnceKey, Answer]) -> None:
    """Keep what a request was answered."""
    key, answer = kept
    tx.connection.execute(
        f"UPDATE answers SET status = ?, answer = ?, changed = 1 WHERE {_OPEN}",
        (answer.status, answer.text, key.owner, key.key),
    )


def drop(tx: Transaction, key: OnceKey) -> None:
    """Forget a request that changed nothing."""
    tx.connection.execute(
        f"DELETE FROM answers WHERE {_OPEN} AND changed = 0", (key.owner, key.key)
    )


def drop_unfinished(connection: Connection) -> None:
    """The process that began them has ended."""
    connection.execute("DELETE FROM answers WHERE status IS NULL AND changed = 0")


def forget(tx: Transaction, before: int) -> int:
    """Forget some of what is too old to be repeated; how many."""
    return tx.connection.execute(
        "DELETE FROM answers WHERE (owner, key) IN"
        " (SELECT owner, key FROM answers WHERE begun_at <= ? ORDER BY begun_at LIMIT ?)",
        (before, STEP),
    ).rowcount
