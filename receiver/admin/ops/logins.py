"""Floor 3, flows: the use cases of logging in to the dashboard. The store's protocol."""

from __future__ import annotations

from base64 import urlsafe_b64encode

from receiver.access import Action, Deed
from receiver.admin.ops.asking import Desk, Principal
from receiver.clock import to_datetime
from receiver.errors import Unauthenticated
from receiver.sessions import CODE_LIFE, LIFE, LoginLink, Session, digest_code
from receiver.store.protocol import EndedSession, Holder, NewLogin


class LoginOps(Desk):
    """Links that log in once, and sessions."""

    def now(self) -> int:
        """What sessions and pages take for the present, in milliseconds since 1970."""
        return self._clock()

    async def new_login_link(self, who: Principal) -> LoginLink:
        """A link that logs in whoever asks for it, good once and for ten minutes."""
        code, now = urlsafe_b64encode(self._random(32)).decode().rstrip("="), self._clock()
        store = self._by(who, Action.LOGIN_LINK_CREATE, None, who.project, remote=who.remote)
        await store.add_login(NewLogin(digest_code(code), who.name, now, now + CODE_LIFE))
        return LoginLink(path=f"/login?code={code}", expires_at=to_datetime(now + CODE_LIFE))

    async def log_in(self, code: str, remote: str, request_id: str | None) -> Session:
        """Burn a link's code. Raises Unauthenticated for one that is used, old or made up."""

        def note(holder: Holder | None) -> Deed | None:
            if holder is None:
                return None
            who = Principal(
                holder.name,
                holder.project,
                title=holder.title,
                request_id=request_id,
                remote=remote,
            )
            return self._begun(who, "link")

        store = self.store.audited(note)
        holder = await store.take_login(digest_code(code), self._clock())
        if holder is None:
            raise Unauthenticated("This link was used before, or is too old. Ask for another.")
        return self._session(holder.name)

    async def begin_session(self, who: Principal) -> Session:
        """A session of somebody who has shown their token, once that is noted."""
        await self.store.note(self._begun(who, "token"))
        return self._session(who.name)

    def _begun(self, who: Principal, by: str) -> Deed:
        return self._deed(who, Action.SESSION_BEGIN, project=who.project, by=by, remote=who.remote)

    def _session(self, name: str) -> Session:
        return Session(self._random(16).hex(), name, self._clock() + LIFE)

    async def log_out(self, who: Principal, session: Session) -> None:
        """End a session before its time; its cookie opens nothing any more."""
        ended = EndedSession(session.id, self._clock(), session.expires_at)
        store = self._by(who, Action.SESSION_END, None, who.project, remote=who.remote)
        await store.end_session(ended)

    async def is_logged_out(self, session: Session) -> bool:
        """Whether a session was ended by hand."""
        return await self.store.is_ended(session.id)
