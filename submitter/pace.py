"""Floor 1, decisions: when the next question may be asked. Time is passed in.

One rate over all questions, however many ask at once, and a hold over all of them: what one answer
says of the platform (it is full, it is down) holds for the others too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

LONGEST_HOLD: Final = 900.0  # seconds that a platform's Retry-After may hold us back
LONGEST_PAUSE: Final = 60.0  # seconds between questions to a platform that is down

Sleep = Callable[[float], Awaitable[None]]


def pause_after(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4 … a minute."""
    return min(2.0 ** min(failures - 1, 10), LONGEST_PAUSE)


class Pace:
    """`rate` questions a second. `clock` gives seconds, `sleep` waits them."""

    def __init__(self, rate: float, *, clock: Callable[[], float], sleep: Sleep) -> None:
        self.interval = 1 / rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = self._held_until = clock()
        self._troubles = 0

    @property
    def held(self) -> float:
        """The seconds for which nothing may be asked at all."""
        return max(self._held_until - self._clock(), 0.0)

    async def turn(self, patience: float = inf) -> bool:
        """Wait for a turn and take it; False when there is none within so many seconds."""
        while (wait := max(self._free_at - self._clock(), self.held)) > 0:
            if wait > patience:
                return False
            await self._sleep(wait)
        self._free_at = self._clock() + self.interval
        return True

    async def over_hold(self) -> None:
        """Wait until questions may be asked at all; takes no turn."""
        while (wait := self.held) > 0:
            await self._sleep(wait)

    def hold(self, seconds: float) -> None:
        """Ask nothing for so long."""
        self._held_until = max(self._held_until, self._clock() + min(seconds, LONGEST_HOLD))

    def note_trouble(self, after: float | None) -> None:
        """The platform is not well: hold everything back for as long as it says, or ever longer.

        Several answers to questions that were asked together are one trouble.
        """
        if after is None:
            if self.held:
                return
            self._troubles += 1
            after = pause_after(self._troubles)
        self.hold(after)

    def note_answer(self) -> None:
        """The platform is well."""
        self._troubles = 0
