"""Floor 2, edges: the SQLite store's verbs of repair: what failed is seen, and sent again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from receiver import ids
from receiver.deliveries import DeadLetters
from receiver.endpoints import Subscription
from receiver.repair import Replayed
from receiver.store.protocol import Page, Query, Replay
from receiver.store.sqlite.reads import Reads
from receiver.store.sqlite.replays import Replays
from receiver.store.writer import Writer, each


class Repairs:
    """A part of SqliteStore."""

    _writer: Writer
    _reads: Reads

    def _make_repairs(
        self, subscriptions: Callable[[], Sequence[Subscription]], next_id: Callable[[], int]
    ) -> None:
        replays = Replays(subscriptions, next_id)
        self._replay, self._test = each(replays.replay), each(replays.test)

    async def dead_letters(self, query: Query) -> Page[DeadLetters]:
        """Dead deliveries by endpoint and cause."""
        return await self._reads.dead_letters(query)

    async def replay(self, asked: Replay) -> Replayed:
        """Send an event again to those that want it today."""
        return await self._writer.call(self._replay, asked)

    async def test_endpoint(self, endpoint_id: str, now: int) -> str:
        """Queue an `endpoint.test` for one endpoint."""
        number = ids.parse(ids.ENDPOINT, endpoint_id)
        return await self._writer.call(self._test, (number, now))
