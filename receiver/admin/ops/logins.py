"""Floor 3, flows: the use cases of logging in to the dashboard. The store's protocol."""

from __future__ import annotations

from base64 import urlsafe_b64encode

from receiver.admin.ops.asking import Desk, Principal
from receiver.clock import to_datetime
from receiver.errors import Unauthenticated
from receiver.sessions import CODE_LIFE, LIFE, LoginLink, Session, digest_code
from receiver.store.protocol import EndedSession, NewLogin


class LoginOps(Desk):
    """Links that log in once, and sessions."""

    def now(self) -> int:
        """What sessions and pages take for the present, in milliseconds since 1970."""
        return self._clock()

    async def new_login_link(self, who: Principal) -> LoginLink:
        """A link that logs in whoever asks for it, good once and for ten minutes."""
        code, now = urlsafe_b64encode(self._random(32)).decode().rstrip("="), self._clock()
        await self.store.add_login(NewLogin(digest_code(code), who.name, now, now + CODE_LIFE))
        return LoginLink(path=f"/login?code={code}", expires_at=to_datetime(now + CODE_LIFE))

    async def log_in(self, code: str) -> Session:
        """Burn a link's code. Raises Unauthenticated for one that is used, old or made up."""
        holder = await self.store.take_login(digest_code(code), self._clock())
        if holder is None:
            raise Unauthenticated("This link was used before, or is too old. Ask for another.")
        return self.begin_session(holder)

    def begin_session(self, name: str) -> Session:
        """A session of somebody who has shown who they are."""
        return Session(self._random(16).hex(), name, self._clock() + LIFE)

    async def log_out(self, session: Session) -> None:
        """End a session before its time; its cookie opens nothing any more."""
        ended = EndedSession(session.id, self._clock(), session.expires_at)
        await self.store.end_session(ended)

    async def is_logged_out(self, session: Session) -> bool:
        """Whether a session was ended by hand."""
        return await self.store.is_ended(session.id)
