"""What is expected of a task, from what the last ones of its model took."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import DAY, HOUR, MINUTE, SECOND
from receiver.expectations import FEWEST, SAMPLES, SHORTEST, Expectation, expect
from receiver.tasks import DEADLINE


@pytest.mark.parametrize(
    ("took", "longest", "duration", "deadline"),
    [
        ([], DAY, None, DEADLINE),
        ([MINUTE] * (FEWEST - 1), DAY, None, DEADLINE),
        ([MINUTE] * FEWEST, DAY, MINUTE, 2 * MINUTE),
        ([20 * SECOND] * FEWEST, DAY, 20 * SECOND, SHORTEST),
        ([0] * FEWEST, DAY, 0, SHORTEST),
        # Of a few, the longest decides; of many, one in twenty does not.
        ([MINUTE] * 4 + [HOUR], DAY, MINUTE, 2 * HOUR),
        ([MINUTE] * 48 + [HOUR] * 2, DAY, MINUTE, 2 * MINUTE),
        ([MINUTE] * 47 + [HOUR] * 3, DAY, MINUTE, 2 * HOUR),
        ([MINUTE, 2 * MINUTE, 3 * MINUTE, 4 * MINUTE, 5 * MINUTE], DAY, 3 * MINUTE, 10 * MINUTE),
        # Never after the task is given up.
        ([MINUTE] * FEWEST, 90 * SECOND, MINUTE, 90 * SECOND),
        ([20 * SECOND] * FEWEST, 30 * SECOND, 20 * SECOND, 30 * SECOND),
        ([DAY] * FEWEST, DAY, DAY, DAY),
    ],
)
def test_a_deadline_is_twice_what_nearly_all_took(
    took: list[int], longest: int, duration: int | None, deadline: int
) -> None:
    for seed in range(3):
        shuffled = random.Random(seed).sample(took, len(took))
        assert expect(shuffled, longest=longest) == Expectation(duration, deadline)


@given(st.lists(st.integers(0, DAY), min_size=FEWEST, max_size=SAMPLES))
def test_nearly_all_of_those_it_is_learned_from_would_have_kept_it(took: list[int]) -> None:
    found = expect(took, longest=DAY)
    late = [one for one in took if one > found.deadline]
    assert len(late) <= len(took) * 0.05
    assert found.duration in took
    assert SHORTEST <= found.deadline <= DAY
