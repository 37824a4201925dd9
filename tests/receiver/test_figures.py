"""Figures that are computed: widths of time, percentiles, strips."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import HOUR, to_datetime
from receiver.condition import Check, Grade, worst
from receiver.figures import HOURS, percentile, rate, strip, within
from tests.doubles import START

DURATIONS = st.integers(0, 400_000)


@given(DURATIONS)
def test_a_width_is_a_fifth_more_than_the_duration_at_most(duration: int) -> None:
    assert duration <= within(duration) <= max(duration * 1.2, duration + 1)


@given(st.lists(DURATIONS, min_size=1))
def test_the_percentile_is_the_width_of_the_duration_at_that_place(durations: list[int]) -> None:
    counts: dict[int, int] = {}
    for duration in durations:
        counts[within(duration)] = counts.get(within(duration), 0) + 1
    exact = sorted(durations)[ceil(len(durations) * 0.95) - 1]
    assert percentile(counts) == within(exact)


def test_nothing_has_no_percentile_and_no_rate() -> None:
    assert percentile({}) is None
    assert rate(0, 0) is None
    assert rate(1, 3) == 0.25


def test_a_strip_ends_with_the_present_hour() -> None:
    hour = START // HOUR
    found = strip(START, {hour: (1, 2), hour - HOURS: (9, 9)})
    assert len(found) == HOURS
    assert found[-1].at == to_datetime(hour * HOUR)
    assert (found[-1].failed, found[-1].succeeded) == (1, 2)
    assert sum(one.failed + one.succeeded for one in found) == 3


@pytest.mark.parametrize(
    ("grades", "expected"),
    [
        ([], Grade.OK),
        ([Grade.OK, Grade.WARNING, Grade.OK], Grade.WARNING),
        ([Grade.FAILING, Grade.WARNING], Grade.FAILING),
    ],
)
def test_the_worst_check_counts(grades: list[Grade], expected: Grade) -> None:
    assert worst([Check(name="x", grade=grade, detail="") for grade in grades]) is expected
