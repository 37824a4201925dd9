"""Floor 2, edges: the store's verbs of access: tokens, audit, answers to repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Self

from receiver import ids
from receiver.access import ApiToken, AuditEntry, Deed, Note, OnceKey
from receiver.errors import NotFound
from receiver.store.protocol import Answer, Known, NewApiToken, Once, Page, Query
from receiver.store.verbs import answers, audit, tokens
from receiver.store.verbs.reads import Reads, page_of
from receiver.store.writer import Write, each


class Access:
    """A part of SqlStore."""

    _write: Write
    _reads: Reads

    def _make_access(self, next_id: Callable[[], int]) -> None:
        self._note = each(audit.note)
        self._add_token, self._delete_token = each(tokens.Tokens(next_id).add), each(tokens.delete)
        self._note_uses = each(tokens.note_uses)
        self._begin_once, self._keep_answer = each(answers.begin), each(answers.keep)
        self._drop_once, self._forget_answers = each(answers.drop), each(answers.forget)

    def audited(self, note: Note) -> Self:
        """This store, whose next verb leaves a row."""
        view = copy(self)
        view._write = audit.noting(self._write, note)  # noqa: SLF001 - it is this very store
        return view

    async def note(self, deed: Deed) -> None:
        """Leave a row about what is more than one transaction."""
        await self._write(self._note, deed)

    async def audit(self, query: Query) -> Page[AuditEntry]:
        """Manual actions, the latest first."""
        rows = await self._reads.rows(*audit.page_of(query))
        return page_of(rows, query, audit.entry_of, *audit.ORDER)

    async def add_api_token(self, new: NewApiToken) -> ApiToken:
        """Keep a token's digest."""
        return await self._write(self._add_token, new)

    async def api_tokens(self, query: Query) -> Page[ApiToken]:
        """API tokens, the newest first."""
        rows = await self._reads.rows(*tokens.page_of(query))
        return page_of(rows, query, tokens.token_of, *tokens.ORDER)

    async def api_token(self, token_id: str) -> ApiToken:
        """One API token."""
        number = ids.parse(ids.API_TOKEN, token_id)
        rows = await self._reads.rows(tokens.BY_ID, (number,))
        if not rows:
            raise NotFound(f"There is no API token {token_id}.")
        return tokens.token_of(rows[0])

    async def known_token(self, digest: bytes) -> Known | None:
        """The token that has this digest."""
        rows = await self._reads.rows(tokens.BY_DIGEST, (digest,))
        return tokens.known_of(rows[0]) if rows else None

    async def delete_api_token(self, token_id: str) -> None:
        """Forget a token."""
        await self._write(self._delete_token, ids.parse(ids.API_TOKEN, token_id))

    async def note_token_uses(self, uses: Mapping[str, int]) -> None:
        """When these tokens were last used."""
        await self._write(self._note_uses, uses)

    async def begin_once(self, once: Once) -> Answer | None:
        """The answer to repeat, or None."""
        return await self._write(self._begin_once, once)

    async def keep_answer(self, key: OnceKey, answer: Answer) -> None:
        """Keep what a request was answered."""
        await self._write(self._keep_answer, (key, answer), len(answer.text))

    async def drop_once(self, key: OnceKey) -> None:
        """Forget a request that changed nothing."""
        await self._write(self._drop_once, key)

    async def forget_answers(self, before: int) -> int:
        """Forget some of what is too old."""
        return await self._write(self._forget_answers, before)
