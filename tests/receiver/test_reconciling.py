"""When a task is polled next."""

from __future__ import annotations

import pytest

from receiver.reconciling import BACKOFF, next_due
from tests.doubles import START


@pytest.mark.parametrize("attempts", range(10))
def test_the_pauses_grow_and_the_last_one_repeats(attempts: int) -> None:
    pause = BACKOFF[min(max(attempts - 1, 0), len(BACKOFF) - 1)]
    assert next_due(attempts, now=START, complete=False) == START + pause


def test_a_complete_task_is_asked_after_a_few_times_only() -> None:
    asked = [next_due(n, now=START, complete=True) for n in range(1, len(BACKOFF) + 3)]
    assert [due is None for due in asked] == [False] * len(BACKOFF) + [True] * 2
