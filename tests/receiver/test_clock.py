"""Time as integers, and how it is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import from_datetime, to_datetime, to_rfc3339, wall_clock

MOMENT = 1_795_203_604_120


def test_a_moment_is_written_in_utc_with_milliseconds() -> None:
    assert to_rfc3339(MOMENT) == "2026-11-20T19:40:04.120Z"
    assert to_rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_an_aware_datetime_is_read_in_its_own_zone_and_a_naive_one_as_utc() -> None:
    naive = datetime(2026, 11, 20, 19, 40, 4, 120_000)
    east = timezone(timedelta(hours=2))
    assert from_datetime(naive) == from_datetime(naive.replace(tzinfo=UTC)) == MOMENT
    assert from_datetime(naive.replace(tzinfo=east)) == MOMENT - 2 * 3_600_000


@given(st.integers(0, 250_000_000_000_000))
def test_a_datetime_keeps_each_millisecond(moment: int) -> None:
    assert from_datetime(to_datetime(moment)) == moment
    assert from_datetime(datetime.fromisoformat(to_rfc3339(moment))) == moment


def test_the_wall_clock_gives_milliseconds_of_this_century() -> None:
    assert to_datetime(wall_clock()).year >= 2026
