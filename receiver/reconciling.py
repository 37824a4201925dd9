"""Floor 1, decisions: when a task is polled next, if no result comes of itself. Pure."""

from __future__ import annotations

from typing import Final

from receiver.clock import MINUTE, SECOND

# Of a platform that calls back: a poll is for what was lost. How long after each the next one is
# due; the last of them repeats.
BACKOFF: Final = (
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
)


# Of a platform that is only polled, where a poll is how results come: every few seconds while most
# runs end, more seldom for long ones (its page: 3-5 s, platforms.md §3). Up to how many polls, each
# of these pauses.
POLLING: Final = (
    (10, 3 * SECOND),  # half a minute
    (40, 5 * SECOND),  # three
    (80, 8 * SECOND),  # eight
    (140, 12 * SECOND),  # twenty
)
LONGEST_POLLING: Final = 15 * SECOND
FIRST_POLL: Final = 3 * SECOND  # after the platform has taken a task
# After a submit without an answer, as long as it may still get one. Whoever polls has to look for
# the run among others then, so it is not done every few seconds.
FIRST_SEARCH: Final = 2 * MINUTE
MOST_BY_HAND: Final = len(BACKOFF)  # polls of a complete task


def next_due(
    attempts: int, *, now: int, complete: bool, polled: bool = False, give_up_at: int | None = None
) -> int | None:
    """When a task is due again after so many polls; None: not again by itself.

    An open task is polled until it completes or is given up. A complete one was asked for by hand,
    so a few polls that find nothing are enough. `polled`: its platform does not call back and its
    run is known, so nothing is gained by being due after `give_up_at`.
    """
    if complete and attempts > MOST_BY_HAND:
        return None
    due = now + (_polling(attempts) if polled else _backing_off(attempts))
    if polled and not complete and give_up_at is not None and due > give_up_at:
        return None
    return due


def first_due(*, now: int, run_known: bool, give_up_at: int | None) -> int | None:
    """When a task is due whose platform does not call back, and may have taken it by now."""
    due = now + (FIRST_POLL if run_known else FIRST_SEARCH)
    return None if give_up_at is not None and due > give_up_at else due


def _backing_off(attempts: int) -> int:
    return BACKOFF[min(max(attempts, 1), len(BACKOFF)) - 1]


def _polling(attempts: int) -> int:
    return next((pause for upto, pause in POLLING if attempts <= upto), LONGEST_POLLING)
