"""Floor 0, nouns: time as integers, and how it is written. Stdlib only.

A clock is any callable that gives milliseconds since 1970 (UTC). Only assembly picks a real one:
a steady one for whatever is measured or scheduled (leases, retries, deadlines), over the time of
the database's server where there is one; the wall's for what others compare with theirs (a token's
age, a signature's timestamp).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache, partial

Clock = Callable[[], int]

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_STEP_NS = 10 * SECOND * 1_000_000  # less is how clocks are kept right
APART_NS = 2 * SECOND * 1_000_000  # no two clocks that are kept right differ by so much
_DAY_NS = DAY * 1_000_000
_YEAR_2200 = 7_258_118_400 * SECOND


def wall_clock() -> int:
    """Milliseconds since 1970, from the system."""
    return time.time_ns() // 1_000_000


# Counts the time that a machine sleeps, where there is a clock that does.
_steady_ns = partial(time.clock_gettime_ns, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SteadyClock:
    """The system's time without its jumps; not safe across threads.

    When somebody sets the system's clock, this one goes half again as fast, or half as fast, until
    they agree: a lease is never over at once, a retry never an hour late, and time never goes
    back. A step of more than a day is taken at once: a clock that far off was never right.
    `wall` and `steady` give nanoseconds; `on_step` is told the milliseconds of each step.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        steady: Callable[[], int] = _steady_ns,
        on_step: Callable[[int], None] = lambda ms: None,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._on_step = on_step
        self._seen = steady()
        self._now = wall()
        self._is_apart = False

    def __call__(self) -> int:
        """Milliseconds since 1970."""
        seen, wall = self._steady(), self._wall()
        passed, self._seen = seen - self._seen, seen
        gap = wall - self._now - passed
        if -passed <= 2 * gap <= passed:  # nobody set it, as good as always
            self._now = wall
            return wall // 1_000_000
        return self._follow(passed, gap) // 1_000_000

    def _follow(self, passed: int, gap: int) -> int:
        was_apart, self._is_apart = self._is_apart, abs(gap) > _STEP_NS
        if self._is_apart and not was_apart:
            self._on_step(gap // 1_000_000)
        most = passed // 2
        if abs(gap) > _DAY_NS:
            most, self._is_apart = abs(gap), False
        self._now += passed + max(-most, min(most, gap))
        return self._now


def agreed(ahead: int, asked: int, said: int, heard: int) -> int:
    """How far a server's clock is ahead of one's own, after it was asked once more.

    It said its time somewhere between two looks at one's own, so `ahead`, which was believed until
    now, changes no further than these prove it wrong: a slow answer changes nothing.
    """
    if heard < asked:  # somebody set one's own clock meanwhile
        return ahead
    return min(max(ahead, said - heard), said - asked)


class AgreedClock:
    """The system's time as the server has it that several processes share, so that a lease is as
    long for all of them. Until that has said what time it is, the system's own.

    `wall` gives nanoseconds; `on_apart` is told by how many milliseconds the server is ahead, once,
    when the two are further apart than clocks that are kept right.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        on_apart: Callable[[int], None] = lambda ms: None,
    ) -> None:
        self._wall = wall
        self._on_apart = on_apart
        self._ahead = 0
        self._is_apart = False

    def ns(self) -> int:
        """Nanoseconds since 1970."""
        return self._wall() + self._ahead

    def __call__(self) -> int:
        """Milliseconds since 1970."""
        return (self._wall() + self._ahead) // 1_000_000

    def agree(self, ask: Callable[[], int]) -> None:
        """Ask the server for its time, in nanoseconds. Raises what that does."""
        asked = self._wall()
        said = ask()
        self._ahead = agreed(self._ahead, asked, said, self._wall())
        was_apart, self._is_apart = self._is_apart, abs(self._ahead) > APART_NS
        if self._is_apart and not was_apart:
            self._on_apart(self._ahead // 1_000_000)


def to_rfc3339(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-11-20T19:40:04.120Z`."""
    return f"{_to_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=64)
def _to_second(seconds: int) -> str:
    # Thousands of events share a second; strftime was a tenth of a commit.
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def from_datetime(moment: datetime) -> int:
    """Milliseconds of an aware datetime; a naive one is read as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def within_reason(ms: int) -> int:
    """The same milliseconds, if any calendar of ours can show them. Raises ValueError."""
    if not 0 <= ms < _YEAR_2200:
        raise ValueError("a time from 1970 to 2200")
    return ms


def to_datetime(ms: int) -> datetime:
    """An aware UTC datetime, exact to the millisecond."""
    return datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000)
