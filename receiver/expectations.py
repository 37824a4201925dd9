"""Floor 1, decisions: what to expect of a task, from what others of its model and project took.

A deadline that nobody named is twice what nearly all of the last ones took: so early that what got
lost is soon asked for, so late that it is mostly lost. Too early costs a poll and a `task.overdue`.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from receiver.clock import MINUTE
from receiver.tasks import DEADLINE

SAMPLES: Final = 50  # of the latest tasks of a model; what was long ago says little
FEWEST: Final = 5  # fewer say nothing
SHORTEST: Final = MINUTE  # a platform repeats a callback for about as long
NEARLY_ALL: Final = 95  # of a hundred


@dataclass(frozen=True, slots=True)
class Expectation:
    """Milliseconds from the registration: until half of such tasks are complete (None: not known),
    and until one counts as overdue."""

    duration: int | None
    deadline: int


def expect(took: Sequence[int], *, longest: int) -> Expectation:
    """What follows from so many milliseconds of the latest tasks of a model, in any order.

    `longest`: until the task is given up, after which a deadline is none.
    """
    if len(took) < FEWEST:
        return Expectation(None, DEADLINE)
    ranked = sorted(took)
    deadline = max(2 * _percentile(ranked, NEARLY_ALL), SHORTEST)
    return Expectation(_percentile(ranked, 50), min(deadline, longest))


def _percentile(ranked: Sequence[int], percent: int) -> int:
    # The nearest rank: one that was really taken, and the longest of a few.
    return ranked[-(-len(ranked) * percent // 100) - 1]
