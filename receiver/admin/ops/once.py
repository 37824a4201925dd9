"""Floor 3, flows: requests that must not be done twice (`Idempotency-Key`). The store's protocol.

The first request with a key is done, and what it was answered is kept for a day and repeated. An
answer may hold a secret that is kept nowhere else, so all of them are sealed. Only what changed
something is kept: a refused request changed nothing, and may come again.

A receiver that ends in between is safe, too. That a request did its work is noted in the
transaction of that work, so the second one is told so (AnswerLost), and nothing is done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from receiver.access import OnceKey
from receiver.admin.ops.asking import Desk, Principal
from receiver.clock import DAY, MINUTE
from receiver.errors import AnswerLost, CannotStart, StoreUnavailable
from receiver.store.protocol import Answer, Once

KEPT: Final = DAY
LEASE: Final = 5 * MINUTE  # longer than any request; after it, one that changed nothing is gone

Sealed = str | dict[str, str]


class Seals(Protocol):
    """Seals texts, each for its place, and opens them. Raises CannotStart for another's."""

    def close(self, place: str, text: str) -> Sealed: ...
    def open(self, place: str, kept: Sealed) -> str: ...


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request was answered, as it is repeated."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)  # may show a secret, once


class OnceOps(Desk):
    """Repeats what a request with a known key was answered."""

    _seals: Seals

    async def begin_once(self, who: Principal, asked: bytes) -> Answered | None:
        """The answer to repeat; None: it is the first with this key, so it is to be done.

        `asked` is a digest of the whole request. Raises KeyReused, KeyInUse, AnswerLost.
        """
        key = _key_of(who)
        answer = await self.store.begin_once(Once(key, asked, self._clock(), LEASE, KEPT))
        return None if answer is None else self._opened(key, answer)

    async def keep_answer(self, who: Principal, answered: Answered) -> None:
        """Keep what it was answered. If that fails it is done nevertheless, and not done again."""
        key = _key_of(who)
        text = json.dumps([dict(answered.headers), answered.body.decode("latin-1")])
        sealed = json.dumps(self._seals.close(_place(key), text))
        with suppress(StoreUnavailable):  # the store itself says so
            await self.store.keep_answer(key, Answer(answered.status, sealed))

    async def drop_once(self, who: Principal) -> None:
        """It was refused: it may come again, if it has changed nothing."""
        with suppress(StoreUnavailable):  # then it may come again when its lease is over
            await self.store.drop_once(_key_of(who))

    async def _forget_answers(self) -> None:
        while await self.store.forget_answers(self._clock() - KEPT):
            pass

    def _opened(self, key: OnceKey, answer: Answer) -> Answered:
        try:
            text = self._seals.open(_place(key), json.loads(answer.text))
        except CannotStart:  # the signing key that sealed it was taken away since
            raise AnswerLost from None
        headers, body = json.loads(text)
        return Answered(answer.status, headers, body.encode("latin-1"))


def _key_of(who: Principal) -> OnceKey:
    key = who.once
    assert key is not None  # noqa: S101 - asked only for requests that have one
    return key


def _place(key: OnceKey) -> str:
    return f"answers/{key.owner}/{key.key}"
