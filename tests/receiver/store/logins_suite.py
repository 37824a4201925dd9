"""What every store does with login links and with sessions that were ended."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from receiver.access import ApiTokenAsked, Scope
from receiver.clock import MINUTE
from receiver.sessions import digest_code
from receiver.store.protocol import EndedSession, Holder, NewApiToken, NewLogin, Store
from tests.doubles import START, FakeClock
from tests.receiver.store.suite import Opener

CODE = digest_code("a code")
WHO = "admin"


@pytest.mark.anyio
class LoginsSuite:
    """Each test begins with an empty store."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, open_store: Opener) -> AsyncIterator[Store]:
        store = await open_store()
        yield store
        await store.close()

    async def test_a_link_is_good_once(self, store: Store) -> None:
        await store.add_login(NewLogin(CODE, WHO, START, START + MINUTE))

        assert await store.take_login(digest_code("another"), START) is None
        assert await store.take_login(CODE, START + MINUTE - 1) == Holder(WHO)
        assert await store.take_login(CODE, START + MINUTE - 1) is None

    async def test_a_link_that_is_over_is_no_good_and_goes_with_the_next(
        self, store: Store
    ) -> None:
        await store.add_login(NewLogin(CODE, WHO, START, START + MINUTE))
        assert await store.take_login(CODE, START + MINUTE) is None

        await store.add_login(NewLogin(CODE, WHO, START, START + MINUTE))
        await store.add_login(
            NewLogin(digest_code("next"), WHO, START + MINUTE, START + 2 * MINUTE)
        )
        assert await store.take_login(CODE, START) is None

    async def test_a_link_logs_in_the_holder_of_a_token_while_that_is_good(
        self, store: Store
    ) -> None:
        asked = ApiTokenAsked(name="renderer", scope=Scope.READ, project="film")
        lapses = START + MINUTE
        token = await store.add_api_token(
            NewApiToken(asked, b"digest", "hint", "admin", START, lapses)
        )
        for now, holder in ((lapses - 1, Holder(token.id, "renderer", "film")), (lapses, None)):
            await store.add_login(NewLogin(CODE, token.id, START, START + 2 * MINUTE))
            assert await store.take_login(CODE, now) == holder
        await store.add_login(NewLogin(CODE, token.id, START, START + 2 * MINUTE))
        await store.delete_api_token(token.id)
        assert await store.take_login(CODE, START) is None

    async def test_an_ended_session_is_known_until_it_would_be_over(self, store: Store) -> None:
        await store.end_session(EndedSession("one", START, START + MINUTE))
        await store.end_session(EndedSession("one", START, START + MINUTE))
        assert await store.is_ended("one")
        assert not await store.is_ended("two")

        await store.end_session(EndedSession("two", START + MINUTE, START + 2 * MINUTE))
        assert not await store.is_ended("one")
        assert await store.is_ended("two")
