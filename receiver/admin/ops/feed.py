"""Floor 3, flows: the use cases of whoever watches what happens. The store's protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from receiver.admin.ops.asking import Desk, Principal
from receiver.admin.ops.broadcast import Broadcaster
from receiver.admin.ops.watch import MAX_WAIT
from receiver.endpoints import PreviewAsked, check, subscription_of
from receiver.feed import Place, Told, Wanted
from receiver.store.protocol import Query


class FeedOps(Desk):
    """Events as they happen, and those that are sent again."""

    feed: Broadcaster

    def wanted(
        self,
        who: Principal,
        event_types: Sequence[str],
        filters: Mapping[str, Sequence[str]],
        project: str | None,
    ) -> Wanted:
        """What is asked for, as endpoints ask. Raises Invalid, Forbidden, or a ValidationError."""
        named = {name: list(values) for name, values in filters.items()}
        asked = PreviewAsked(event_types=list(event_types), filters=dict(named))
        check(asked)
        seen = who.within(Query(project=project)).project
        return Wanted(seen, subscription_of(asked, seen or ""))

    async def wait_events(
        self, wanted: Wanted, after: Place | None, seconds: float
    ) -> tuple[Sequence[Told], Place]:
        """What is wanted behind a place (None: from now on), as soon as there is some.

        Nothing after so many seconds; with where to go on in any case.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + min(seconds, MAX_WAIT)
        with self.feed.watching(after) as watcher:
            while True:
                page = await watcher.next(max(until - loop.time(), 0))
                found = [one for one in page if wanted.lets(one)]
                if found or watcher.is_over or loop.time() >= until:
                    return found, await watcher.place()
