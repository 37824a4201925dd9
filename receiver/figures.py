"""Floor 0, nouns: figures: how much there is, and how it goes, within bounds. Stdlib, pydantic.

None of them reads all that is kept. A count stops at a bound and says so, and what endpoints
answered is summed up as it comes: an hour and a width of time are the key of a sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import ceil, log2
from typing import Final

from pydantic import BaseModel

from receiver.clock import HOUR, to_datetime
from receiver.endpoints import EndpointHealth, State

HOURS: Final = 24  # of a strip
STEPS: Final = 4  # widths of time between a duration and its double
PERCENT: Final = 95


class Figure(BaseModel):
    """A count. Not `complete`: it stopped at a bound, and there are at least so many."""

    count: int
    complete: bool


class TasksNow(BaseModel):
    """Tasks that are not complete; of them `overdue` are past their deadline."""

    open: Figure
    overdue: Figure


class ResultsLately(BaseModel):
    """Results of the last hour; since a later time where more came than are counted.

    `success_rate` from 0 to 1, None where there were none.
    """

    since: datetime
    succeeded: int
    failed: int
    success_rate: float | None


class CallbacksLately(BaseModel):
    """Callbacks of the last hour by outcome; since a later time where more came than are counted.

    `repeated` are those of them that came again, byte for byte.
    """

    since: datetime
    outcomes: dict[str, int]
    repeated: Figure


class Attention(BaseModel):
    """What waits for a person, however old it is.

    `dead` deliveries are those that can be sent again. The rest, `dead_of_deleted` endpoints, waits
    for nobody: it is told so that both together are the list of the dead.
    """

    quarantined: Figure
    conflict: Figure
    dead: Figure
    dead_of_deleted: Figure


class QueueNow(BaseModel):
    """Deliveries that wait; of them `held` are for endpoints that are paused or disabled.

    `oldest_due_at`: since when the one that waits longest could have been sent.
    """

    waiting: Figure
    held: int
    oldest_due_at: datetime | None


class EndpointsNow(BaseModel):
    """Endpoints by state; `failing` are enabled ones whose breaker is not closed."""

    enabled: int
    paused: int
    disabled: int
    failing: int


class CostToday(BaseModel):
    """What results cost that came since midnight in UTC, in dollars; None: no platform named any.

    Not `complete`: at least so much.
    """

    cost: float | None
    complete: bool


class Answers(BaseModel):
    """What the door for callbacks answered since the process started, by outcome."""

    since: datetime
    outcomes: dict[str, int]


class Overview(BaseModel):
    """How the receiver fares, or one project on it. `answers` are of all projects together."""

    at: datetime
    project: str | None
    last_callback_at: datetime | None
    tasks: TasksNow
    results: ResultsLately
    callbacks: CallbacksLately
    queue: QueueNow
    attention: Attention
    endpoints: EndpointsNow
    cost_today: CostToday
    answers: Answers | None = None


class HealthHour(BaseModel):
    """Attempts of one endpoint in one hour in UTC, which begins `at`."""

    at: datetime
    succeeded: int
    failed: int


class EndpointReport(BaseModel):
    """How an endpoint fared within 24 hours, and what waits for it.

    `p95_ms`: 95 of 100 attempts took at most so long, to a fifth; None where there were none.
    """

    id: str
    state: State
    health: EndpointHealth
    hours: list[HealthHour]
    attempts: int
    success_rate: float | None
    p95_ms: int | None
    waiting: Figure
    dead: Figure
    oldest_due_at: datetime | None


def within(duration_ms: int) -> int:
    """The width of time that a duration is counted under: a fifth more than it, at most."""
    return 1 if duration_ms <= 1 else ceil(2 ** (ceil(log2(duration_ms) * STEPS) / STEPS))


def percentile(counts: Mapping[int, int]) -> int | None:
    """The width of time that 95 of 100 durations stay in, of widths with their counts."""
    owed = ceil(sum(counts.values()) * PERCENT / 100)
    for width in sorted(counts):
        owed -= counts[width]
        if owed <= 0:
            return width
    return None


def rate(succeeded: int, failed: int) -> float | None:
    """The share that succeeded, from 0 to 1; None of nothing."""
    total = succeeded + failed
    return succeeded / total if total else None


def strip(now: int, counts: Mapping[int, Sequence[int]]) -> list[HealthHour]:
    """The last 24 hours, the present one last; `counts` are (failed, succeeded) by hour."""
    last = now // HOUR
    return [
        HealthHour(at=to_datetime(hour * HOUR), succeeded=found[1], failed=found[0])
        for hour in range(last - HOURS + 1, last + 1)
        for found in (counts.get(hour, (0, 0)),)
    ]
