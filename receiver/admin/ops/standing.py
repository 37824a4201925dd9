"""Floor 3, flows: whether somebody who was let in is to be let in still. The store's protocol.

What goes on for long (a stream, a long poll) asks before each word. Those who hold the same token
share one look at the store, which is good for a second: so that a receiver beside this one, that
took the token back, is heard of. What this one took back counts from the next word on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Final, NamedTuple

from receiver.admin.ops.access import AccessOps
from receiver.admin.ops.asking import ADMIN, Principal
from receiver.admin.ops.logins import LoginOps
from receiver.clock import from_datetime
from receiver.errors import NotFound
from receiver.sessions import Session

FRESH: Final = 1.0  # seconds


class _Seen(NamedTuple):
    """What a look found: until when somebody is let in, in milliseconds; None: for ever."""

    at: float
    until: int | None


class StandingOps(AccessOps, LoginOps):
    """Whether who asked may be answered still."""

    def _begin_standing(self) -> None:
        self._seen: dict[Hashable, _Seen] = {}
        self._looking = asyncio.Lock()
        self._changed_at = -FRESH

    async def is_still(self, who: Principal) -> bool:
        """Whether somebody's token and session are as good as they were when they asked.

        Raises StoreUnavailable.
        """
        if who.name == ADMIN.name and who.session is None:
            return True
        until = (await self._look(who)).until
        return until is None or until > self._clock()

    async def _look(self, who: Principal) -> _Seen:
        key = (who.name, who.session)
        async with self._looking:  # whoever comes meanwhile takes what the first one finds
            now = asyncio.get_running_loop().time()
            self._seen = {one: seen for one, seen in self._seen.items() if self._holds(seen, now)}
            if key not in self._seen:
                self._seen[key] = _Seen(now, await self._until(who.name, who.session))
            return self._seen[key]

    def _holds(self, seen: _Seen, now: float) -> bool:
        return seen.at > self._changed_at and now < seen.at + FRESH

    async def _until(self, name: str, session: Session | None) -> int | None:
        if session is not None and await self.is_logged_out(session):
            return 0
        ends = [] if session is None else [session.expires_at]
        if name != ADMIN.name:
            try:
                token = await self.store.api_token(name)
            except NotFound:
                return 0
            ends += [] if token.expires_at is None else [from_datetime(token.expires_at)]
        return min(ends, default=None)

    async def delete_api_token(self, who: Principal, token_id: str) -> None:
        """Revoke a token: what it opened is shut, and what it keeps open ends."""
        await super().delete_api_token(who, token_id)
        self._changed_at = asyncio.get_running_loop().time()

    async def log_out(self, who: Principal, session: Session) -> None:
        """End a session before its time; its cookie opens nothing any more."""
        await super().log_out(who, session)
        self._changed_at = asyncio.get_running_loop().time()
