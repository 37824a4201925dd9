"""Floor 2, edges: the store's verbs of login links and ended sessions."""

from __future__ import annotations

from receiver import ids
from receiver.store.protocol import EndedSession, Holder, NewLogin
from receiver.store.verbs.reads import Reads
from receiver.store.writer import Transaction, Write, each


class Logins:
    """A part of SqlStore."""

    _write: Write
    _reads: Reads

    def _make_logins(self) -> None:
        self._add_login, self._take_login = each(_add), each(_take)
        self._end_session = each(_end)

    async def add_login(self, new: NewLogin) -> None:
        """Keep a login link's digest."""
        await self._write(self._add_login, new)

    async def take_login(self, digest: bytes, now: int) -> Holder | None:
        """Burn a login link."""
        return await self._write(self._take_login, (digest, now))

    async def end_session(self, ended: EndedSession) -> None:
        """Log a session out."""
        await self._write(self._end_session, ended)

    async def is_ended(self, session_id: str) -> bool:
        """Whether a session was logged out."""
        query = "SELECT 1 FROM ended_sessions WHERE id = ?"
        return bool(await self._reads.rows(query, (session_id,)))


def _add(tx: Transaction, new: NewLogin) -> None:
    tx.connection.execute("DELETE FROM login_codes WHERE expires_at <= ?", (new.now,))
    tx.connection.execute(
        "INSERT INTO login_codes (digest, holder, expires_at) VALUES (?, ?, ?)",
        (new.digest, new.holder, new.expires_at),
    )


def _take(tx: Transaction, asked: tuple[bytes, int]) -> Holder | None:
    digest, now = asked
    taken = tx.connection.execute(
        "DELETE FROM login_codes WHERE digest = ? RETURNING holder, expires_at", (digest,)
    ).fetchone()
    if taken is None or taken[1] <= now:
        return None
    name = str(taken[0])
    return _token_of(tx, name, now) if name.startswith(ids.API_TOKEN) else Holder(name)


def _token_of(tx: Transaction, name: str, now: int) -> Holder | None:
    found = tx.connection.execute(
        "SELECT name, project FROM api_tokens"
        " WHERE id = ? AND (expires_at IS NULL OR expires_at > ?)",
        (ids.parse(ids.API_TOKEN, name), now),
    ).fetchone()
    return None if found is None else Holder(name, *found)


def _end(tx: Transaction, ended: EndedSession) -> None:
    tx.connection.execute("DELETE FROM ended_sessions WHERE expires_at <= ?", (ended.now,))
    tx.connection.execute(
        "INSERT INTO ended_sessions (id, expires_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING",
        (ended.id, ended.expires_at),
    )
