"""Floor 3, flows: the feed for whoever watches it: one query a wake-up, however many they are.

The latest part of the feed is held in memory. Whoever stands within it reads from there; whoever is
behind it, since they resume or are slow, reads pages of the store until they have caught up. So
nobody has a buffer of their own, a slow reader holds up nobody, and nothing is left out.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from typing import Final

from receiver.errors import Busy, StoreUnavailable
from receiver.feed import START, Place, Told
from receiver.store.protocol import Store

PAUSE: Final = 0.05  # seconds between two looks, however much is committed meanwhile
PAGE: Final = 100  # events that a watcher gets at once
HELD: Final = 1_000  # events in memory
HELD_BYTES: Final = 8 << 20  # of their payloads
MOST: Final = 512  # watchers; each has a connection, of which callbacks need the most


class Broadcaster:
    """One for the receiver. Use `watching`; `run` has to run beside it."""

    def __init__(self, store: Store, *, most: int = MOST) -> None:
        self._store = store
        self._most = most
        self._watchers = 0
        self._held: list[Told] = []
        self._bytes = 0
        self._from = START  # what is held begins behind it
        self._end: Place | None = None  # and ends here; None: nobody has looked
        self._stirred = asyncio.Event()
        self._news = asyncio.Event()  # a new one for each news
        self._opening = asyncio.Lock()
        self.is_over = False
        store.on_change(self._hear)

    def _hear(self, _tasks: set[str], _work: bool) -> None:
        if self._watchers:
            self._stirred.set()

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return self._watchers

    @contextmanager
    def watching(self, after: Place | None = None) -> Iterator[Watcher]:
        """Watch what comes behind a place; None: what comes from now on. Raises Busy."""
        if self._watchers >= self._most:
            raise Busy(f"{self._watchers} streams are open, and there may be no more.")
        self._watchers += 1
        try:
            yield Watcher(self, after)
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._held, self._bytes, self._end = [], 0, None

    async def run(self) -> None:
        """Look whenever something was committed and somebody watches, until cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            try:
                await self.tick()
            except StoreUnavailable:
                self._stirred.set()  # it is still to be read
                raise
            await asyncio.sleep(PAUSE)

    async def tick(self) -> int:
        """Read what is new and wake the watchers; how much it was. Raises StoreUnavailable."""
        if not self._watchers:
            return 0
        count, end = 0, await self.end()
        while found := await self._store.told(end):
            if end != self._end:  # the last watcher left meanwhile, and another one came
                return count
            self._hold(found)
            count, end = count + len(found), found[-1].place
        return count

    async def end(self) -> Place:
        """Where the feed ends, as far as it was read. Raises StoreUnavailable."""
        async with self._opening:
            if self._end is None:
                self._from = self._end = await self._store.newest_place()
            return self._end

    def _hold(self, found: Sequence[Told]) -> None:
        self._held += found
        self._bytes += sum(len(one.payload) for one in found)
        self._end = found[-1].place
        drop = 0
        while len(self._held) - drop > HELD or self._bytes > HELD_BYTES:
            self._bytes -= len(self._held[drop].payload)
            drop += 1
        if drop:
            self._from = self._held[drop - 1].place
            del self._held[:drop]
        news, self._news = self._news, asyncio.Event()
        news.set()

    def finish(self) -> None:
        """Tell everybody that it is over: the receiver is about to stop."""
        self.is_over = True
        self._news.set()

    async def after(self, place: Place) -> tuple[Sequence[Told], Place]:
        """A page of what is behind a place by now, and where it ends. Raises StoreUnavailable."""
        end = await self.end()
        if place >= end:
            return (), place
        if place < self._from:
            found = await self._store.told(place)
            return found, found[-1].place if found else end  # what was between is pruned
        first = bisect_right(self._held, place, key=attrgetter("place"))
        page = self._held[first : first + PAGE]
        return page, page[-1].place

    async def newest(self) -> Place:
        """Where the feed ends by now. Raises StoreUnavailable."""
        return await self._store.newest_place()

    async def news(self, place: Place, seconds: float) -> None:
        """Wait until there is something behind a place, it is over, or for so many seconds."""
        news = self._news
        if self.is_over or (self._end is not None and place < self._end):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await news.wait()


class Watcher:
    """One reader of the feed, at its own pace; `place` is where it stands."""

    def __init__(self, broadcaster: Broadcaster, after: Place | None) -> None:
        self._broadcaster = broadcaster
        self._place = after
        self._is_placed = False

    @property
    def is_over(self) -> bool:
        """Whether the receiver is about to stop, so that nothing more will come."""
        return self._broadcaster.is_over

    async def place(self) -> Place:
        """Where this watcher stands: behind all that `next` gave. Raises StoreUnavailable."""
        if not self._is_placed:
            end = await self._broadcaster.end()
            if self._place is None:
                self._place = end
            elif self._place > end:  # of a database that is no more: begin at the end of this one
                self._place = min(self._place, await self._broadcaster.newest())
            self._is_placed = True
        assert self._place is not None  # noqa: S101 - the line above saw to it
        return self._place

    async def next(self, seconds: float) -> Sequence[Told]:
        """What follows, a page of it; empty after so many seconds, or when it is over.

        Raises StoreUnavailable.
        """
        place = await self.place()
        found, self._place = await self._broadcaster.after(place)
        if not found:
            await self._broadcaster.news(self._place, seconds)
            found, self._place = await self._broadcaster.after(self._place)
        return found
