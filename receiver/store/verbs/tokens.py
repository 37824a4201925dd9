"""Floor 2, edges: API tokens: their digests, and when they were used. stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from receiver import ids
from receiver.access import ApiToken
from receiver.clock import to_datetime
from receiver.errors import NotFound
from receiver.store.protocol import Known, NewApiToken, Query
from receiver.store.verbs.rows import Row
from receiver.store.verbs.where import Where
from receiver.store.writer import Transaction

# The digest stays in its column: who reads lists has no use for it.
COLUMNS: Final = "id, name, scope, project, hint, created_at, created_by, expires_at, last_used_at"
ORDER: Final = ("id",)
BY_DIGEST: Final = f"SELECT {COLUMNS} FROM api_tokens WHERE digest = ?"
BY_ID: Final = f"SELECT {COLUMNS} FROM api_tokens WHERE id = ?"


class Tokens:
    """The verbs. `next_id` gives fresh ids."""

    def __init__(self, next_id: Callable[[], int]) -> None:
        self._next_id = next_id

    def add(self, tx: Transaction, new: NewApiToken) -> ApiToken:
        """Keep a token's digest."""
        number, asked = self._next_id(), new.asked
        tx.connection.execute(
            "INSERT INTO api_tokens (id, name, scope, project, digest, hint, created_at,"
            " created_by, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                asked.name,
                asked.scope,
                asked.project,
                new.digest,
                new.hint,
                new.now,
                new.created_by,
                new.expires_at,
            ),
        )
        return ApiToken(
            id=ids.API_TOKEN + ids.encode(number),
            name=asked.name,
            scope=asked.scope,
            project=asked.project,
            hint=new.hint,
            created_at=to_datetime(new.now),
            created_by=new.created_by,
            expires_at=None if new.expires_at is None else to_datetime(new.expires_at),
            last_used_at=None,
        )


def delete(tx: Transaction, number: int) -> None:
    """Forget a token: it opens nothing from now on."""
    gone = tx.connection.execute("DELETE FROM api_tokens WHERE id = ?", (number,)).rowcount
    if not gone:
        raise NotFound(f"There is no API token {ids.API_TOKEN}{ids.encode(number)}.")


def note_uses(tx: Transaction, uses: Mapping[str, int]) -> None:
    """When these were last used; never earlier than was noted before."""
    tx.connection.executemany(
        "UPDATE api_tokens SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE id = ?",
        [(at, ids.parse(ids.API_TOKEN, token)) for token, at in uses.items()],
    )


def page_of(query: Query) -> tuple[str, Sequence[Any]]:
    """The statement of a list, with its values."""
    where = Where()
    where.same("project", query.project)
    where.older(ORDER, query)
    return where.list(f"SELECT {COLUMNS} FROM api_tokens", ORDER, query)


def known_of(row: Row) -> Known:
    """A token that somebody shows."""
    return Known(token_of(row), row["expires_at"])


def token_of(row: Row) -> ApiToken:
    """A token as lists show it."""
    expires, used = row["expires_at"], row["last_used_at"]
    return ApiToken(
        id=ids.API_TOKEN + ids.encode(row["id"]),
        name=row["name"],
        scope=row["scope"],
        project=row["project"],
        hint=row["hint"],
        created_at=to_datetime(row["created_at"]),
        created_by=row["created_by"],
        expires_at=None if expires is None else to_datetime(expires),
        last_used_at=None if used is None else to_datetime(used),
    )
