"""Floor 1, decisions: when a task is polled next, if no result comes of itself. Pure."""

from __future__ import annotations

from typing import Final

from receiver.clock import MINUTE, SECOND

# How long after each poll the next one is due; the last of them repeats.
BACKOFF: Final = (
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    10 * MINUTE,
    15 * MINUTE,
)


def next_due(attempts: int, *, now: int, complete: bool) -> int | None:
    """When a task is due again after so many polls; None: not again by itself.

    An open task is polled until it completes or is given up. A complete one was asked for by hand,
    so a few polls that find nothing are enough.
    """
    if complete and attempts > len(BACKOFF):
        return None
    return now + BACKOFF[min(max(attempts, 1), len(BACKOFF)) - 1]
