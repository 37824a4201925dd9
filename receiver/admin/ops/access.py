"""Floor 3, flows: the use cases of access: API tokens, the audit log. The store's protocol."""

from __future__ import annotations

from receiver.access import (
    BYTES,
    HINT,
    Action,
    ApiToken,
    ApiTokenAsked,
    AuditEntry,
    NewApiToken,
    digest_of,
    token_of,
)
from receiver.admin.ops.asking import ADMIN, Principal, moment
from receiver.admin.ops.once import OnceOps
from receiver.clock import from_datetime
from receiver.errors import Invalid, NotFound
from receiver.store.protocol import NewApiToken as Kept
from receiver.store.protocol import Page, Query


class AccessOps(OnceOps):
    """Who may do what, and who did it."""

    async def holder(self, token: str) -> Principal | None:
        """Whom an API token stands for; None: nobody, or not any more."""
        known = await self.store.known_token(digest_of(token))
        now = self._clock()
        if known is None or (known.expires_at is not None and known.expires_at <= now):
            return None
        return self._used(known.token, now)

    async def standing(self, name: str) -> Principal | None:
        """Whom a session stands for, by the name that it began with; None: nobody any more."""
        if name == ADMIN.name:
            return ADMIN
        try:
            token = await self.store.api_token(name)
        except NotFound:
            return None
        now = self._clock()
        if token.expires_at is not None and from_datetime(token.expires_at) <= now:
            return None
        return self._used(token, now)

    def _used(self, token: ApiToken, now: int) -> Principal:
        self._uses[token.id] = now
        return Principal(token.id, token.project, token.scope, token.name)

    async def tidy(self) -> None:
        """What is done now and then, and not at each request."""
        await self._note_uses()
        await self._forget_answers()

    async def _note_uses(self) -> None:
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self.store.note_token_uses(uses)
        except BaseException:
            self._uses = uses | self._uses  # the next call's
            raise

    async def add_api_token(self, who: Principal, asked: ApiTokenAsked) -> NewApiToken:
        """Make a token. The answer alone has its text."""
        now, expires_at = self._clock(), moment(asked.expires_at, "expires_at")
        if expires_at is not None and expires_at <= now:
            raise Invalid("expires_at is over already.", parameter="expires_at")
        project = who.project if asked.project is None else who.choose(asked.project)
        asked = asked.model_copy(update={"project": project})
        token = token_of(self._random(BYTES))
        store = self._by(
            who,
            Action.API_TOKEN_CREATE,
            None,
            project,
            of=lambda made: {"target": made.id},
            name=asked.name,
            scope=asked.scope,
        )
        kept = Kept(asked, digest_of(token), token[-HINT:], who.name, now, expires_at)
        made = await store.add_api_token(kept)
        return NewApiToken(**made.model_dump(), token=token)

    async def api_tokens(self, who: Principal, query: Query) -> Page[ApiToken]:
        """A page of API tokens, without their texts."""
        return await self.store.api_tokens(who.within(query))

    async def delete_api_token(self, who: Principal, token_id: str) -> None:
        """Revoke a token: what it opened is shut from the next request on."""
        token = await self.store.api_token(token_id)
        who.see(token.project)
        store = self._by(who, Action.API_TOKEN_DELETE, token.id, token.project, name=token.name)
        await store.delete_api_token(token_id)

    async def audit(self, who: Principal, query: Query) -> Page[AuditEntry]:
        """A page of the audit log."""
        return await self.store.audit(who.within(query))
