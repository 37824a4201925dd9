"""Floor 0, nouns: time as integers, and how it is written. Stdlib only.

A clock is any callable that gives milliseconds since 1970 (UTC). Only assembly picks a real one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

Clock = Callable[[], int]

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_YEAR_2200 = 7_258_118_400 * SECOND


def wall_clock() -> int:
    """Milliseconds since 1970, from the system."""
    return time.time_ns() // 1_000_000


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
