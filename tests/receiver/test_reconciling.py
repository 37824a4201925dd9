"""When a task is polled next."""

from __future__ import annotations

from itertools import accumulate

import pytest

from receiver.clock import DAY, MINUTE, SECOND
from receiver.reconciling import BACKOFF, FIRST_POLL, LONGEST_POLLING, first_due, next_due
from tests.doubles import START


@pytest.mark.parametrize("attempts", range(10))
def test_the_pauses_grow_and_the_last_one_repeats(attempts: int) -> None:
    pause = BACKOFF[min(max(attempts - 1, 0), len(BACKOFF) - 1)]
    assert next_due(attempts, now=START, complete=False) == START + pause


@pytest.mark.parametrize("polled", [False, True])
def test_a_complete_task_is_asked_after_a_few_times_only(polled: bool) -> None:
    asked = [
        next_due(n, now=START, complete=True, polled=polled, give_up_at=START)
        for n in range(1, len(BACKOFF) + 3)
    ]
    assert [due is None for due in asked] == [False] * len(BACKOFF) + [True] * 2


def pause(attempts: int) -> int:
    """How long after that many polls a task is due again whose platform does not call back."""
    due = next_due(attempts, now=START, complete=False, polled=True, give_up_at=START + DAY)
    assert due is not None
    return due - START


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        (0, 3),
        (1, 3),
        (10, 3),
        (11, 5),
        (40, 5),
        (41, 8),
        (80, 8),
        (81, 12),
        (140, 12),
        (141, 15),
        (9_999, 15),
    ],
)
def test_what_does_not_call_back_is_polled_every_few_seconds(attempts: int, seconds: int) -> None:
    assert pause(attempts) == seconds * SECOND


def test_its_pauses_never_shrink_and_stay_short() -> None:
    pauses = [FIRST_POLL, *map(pause, range(1, 300))]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_POLLING
    # A run that takes three minutes is noticed within five seconds.
    assert pause(sum(at < 3 * MINUTE for at in accumulate(pauses))) <= 5 * SECOND


@pytest.mark.parametrize(("left", "again"), [(3 * SECOND, True), (3 * SECOND - 1, False)])
def test_what_does_not_call_back_is_not_due_after_it_is_given_up(left: int, again: bool) -> None:
    due = next_due(1, now=START, complete=False, polled=True, give_up_at=START + left)
    assert due == (START + 3 * SECOND if again else None)


@pytest.mark.parametrize(
    ("run_known", "left", "due"),
    [
        (True, None, 3 * SECOND),
        (False, None, 2 * MINUTE),
        (True, 3 * SECOND, 3 * SECOND),
        (True, 3 * SECOND - 1, None),
        (False, 2 * MINUTE - 1, None),
    ],
)
def test_the_first_poll_waits_for_the_run_to_be_known(
    run_known: bool, left: int | None, due: int | None
) -> None:
    give_up_at = None if left is None else START + left
    found = first_due(now=START, run_known=run_known, give_up_at=give_up_at)
    assert found == (None if due is None else START + due)


def test_what_calls_back_has_the_pauses_it_always_had() -> None:
    assert next_due(1, now=START, complete=False, give_up_at=START) == START + BACKOFF[0]
