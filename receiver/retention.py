"""Floor 3, flows: retention. A tick drops a little of what is too old; rounds are hours apart.

A clock that is wrong for a while must not cost a year of results. So rounds begin only when it has
run evenly for an hour: after a start, and after each jump, retention waits.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from receiver.clock import HOUR, MINUTE, Clock
from receiver.keeping import Bounds, Keep, Pruned
from receiver.store.protocol import Prune, PruneStep, Store

ROUND: Final = 6 * HOUR  # from a round's end to the next one's beginning
STEADY: Final = HOUR  # that the clock has to run evenly
JUMP: Final = 10 * MINUTE  # between two looks: more is no pause, the clock was set
LOOK: Final = 60.0  # seconds between two looks while nothing is to be done
REST: Final = 4.0  # times as long as a step took until the next one: others write meanwhile
LEAST_REST: Final = 0.01  # seconds
BY_HAND: Final = 4.0  # seconds that one request may take; clients wait for 10

Journal = Callable[[Mapping[str, int]], None]
Rest = Callable[[float], Awaitable[None]]


class Retention:
    """Keeps the store small. `journal` is told what went, at most once a minute and at the end."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        keep: Keep,
        journal: Journal,
        rest: Rest = asyncio.sleep,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep
        self._journal = journal
        self._rest = rest
        self._timer = timer
        self._bounds: Bounds | None = None  # of the round that is under way
        self._place: tuple[int, ...] = ()
        self._dropped: Counter[str] = Counter()
        self._told_at = 0
        self._seen = 0
        self._steady_since = 0
        self._next_round = 0

    async def run(self) -> None:
        """Tick for ever. Raises StoreUnavailable; the next call goes on where this one stopped."""
        while True:
            begun = self._timer()
            busy = await self.tick()
            await self._rest(self._pause(begun) if busy else LOOK)

    async def tick(self) -> bool:
        """One step of the round that is under way or due; False: there is nothing to do now."""
        now = self._clock()
        steady = self._is_steady(now)
        if self._bounds is None:
            if not steady or now < self._next_round:
                return False
            self._bounds, self._place, self._told_at = self._keep.bounds(now), (), now
        step = await self._store.prune(Prune(now, self._bounds, self._place))
        self._note(step, now)
        return self._bounds is not None

    def _is_steady(self, now: int) -> bool:
        if not self._seen <= now <= self._seen + JUMP:
            self._steady_since, self._next_round = now, 0
        self._seen = now
        return now - self._steady_since >= STEADY

    def _note(self, step: PruneStep, now: int) -> None:
        self._dropped.update(step.counts)
        if step.place is None:
            self._bounds, self._next_round = None, now + ROUND
        else:
            self._place = step.place
        if self._dropped and (step.place is None or now - self._told_at >= MINUTE):
            self._journal(self._dropped)
            self._dropped, self._told_at = Counter(), now

    async def by_hand(
        self, place: tuple[int, ...], *, dry_run: bool
    ) -> tuple[Pruned, tuple[int, ...] | None]:
        """What a few seconds drop or count from a place on, and where it goes on; None: the end.

        Whoever asks by hand sees what would go, so the clock is taken as it is.
        """
        now, until = self._clock(), self._timer() + BY_HAND
        bounds, counts, at = self._keep.bounds(now), Counter[str](), place
        while True:
            begun = self._timer()
            step = await self._store.prune(Prune(now, bounds, at, dry_run))
            counts.update(step.counts)
            if step.place is None or self._timer() >= until:
                break
            at = step.place
            await self._rest(self._pause(begun))
        if counts and not dry_run:
            self._journal(counts)
        return Pruned(dry_run=dry_run, **counts), step.place

    def _pause(self, begun: float) -> float:
        return max(REST * (self._timer() - begun), LEAST_REST)
