"""Floor 1, decisions: how an endpoint fares, and so how much it gets at once. Pure.

Two things follow from every attempt. The throttle halves what an endpoint gets at once when it says
that it has too much, and gives it back one by one. The breaker stops sending to an endpoint that
answers nothing, but for one probe now and then. `MOVES` is the breaker's only state table; the page
docs/states.md draws it, and a test holds the two together. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from receiver.clock import DAY, MINUTE, SECOND
from receiver.deliveries import Outcome
from receiver.delivery.policy import hold_of, refuses_payload, succeeded, throttles
from receiver.endpoints import Breaker

STRIKES: Final = 10  # failed attempts in a row that open the breaker
BRIEFLY: Final = 5 * SECOND  # a failure shorter than this is a restart, and opens nothing
FIRST_PAUSE: Final = 5 * SECOND
LONGEST_PAUSE: Final = 5 * MINUTE
LEAST_PAUSE: Final = SECOND
LONG_FAILURE: Final = 5 * DAY
FAILING: Final = "failing"  # the reason of an endpoint that failed for that long


class Move(StrEnum):
    """What may happen to a breaker."""

    STRIKE_OUT = "strike out"  # so many failures in a row, for so long
    PROBE = "probe"  # the pause is over: one attempt
    FAIL = "fail"  # the probe failed: a pause of twice the length
    ANSWER = "answer"  # a 2xx, or a word about one event: the endpoint is there
    RESET = "reset"  # by hand: the endpoint is enabled, or gets another URL


MOVES: Final[Mapping[tuple[Breaker, Move], Breaker]] = {
    (Breaker.CLOSED, Move.STRIKE_OUT): Breaker.OPEN,
    (Breaker.OPEN, Move.PROBE): Breaker.HALF_OPEN,
    (Breaker.OPEN, Move.ANSWER): Breaker.CLOSED,
    (Breaker.OPEN, Move.RESET): Breaker.CLOSED,
    (Breaker.HALF_OPEN, Move.PROBE): Breaker.HALF_OPEN,  # nobody told how the last one went
    (Breaker.HALF_OPEN, Move.FAIL): Breaker.OPEN,
    (Breaker.HALF_OPEN, Move.ANSWER): Breaker.CLOSED,
    (Breaker.HALF_OPEN, Move.RESET): Breaker.CLOSED,
}


@dataclass(frozen=True, slots=True)
class Health:
    """How an endpoint fares."""

    breaker: Breaker = Breaker.CLOSED
    failures: int = 0  # attempts in a row without a 2xx
    strikes: int = 0  # those of them that speak against the endpoint, not against one event
    failing_since: int | None = None  # the first attempt of that row
    held_until: int | None = None  # nothing is sent before
    refused_at: int | None = None  # when the attempt began whose answer asked for that
    pause: int = 0  # before the last probe
    width: int | None = None  # at most so many at once; None: as many as were set
    throttled_at: int | None = None
    last_success_at: int | None = None
    last_failure_at: int | None = None


WELL: Final = Health()


@dataclass(frozen=True, slots=True)
class Seen:
    """One attempt, and what its endpoint is set to.

    `concurrency`: attempts at once that were set. `longest`: no pause of the breaker is longer.
    """

    outcome: Outcome
    started_at: int
    now: int
    concurrency: int
    longest: int = LONGEST_PAUSE


def longest_pause(schedule: Sequence[int]) -> int:
    """How long a breaker may pause where deliveries have this schedule, in seconds.

    Who asks for retries within seconds does not mean to wait five minutes for the next look.
    """
    return min(max(max(schedule, default=0) * SECOND, LEAST_PAUSE), LONGEST_PAUSE)


def width_of(health: Health, concurrency: int) -> int:
    """How many attempts the endpoint gets at once; a probe stands alone."""
    if health.breaker is not Breaker.CLOSED:
        return 1
    return concurrency if health.width is None else min(health.width, concurrency)


def room(health: Health, *, concurrency: int, busy: int, now: int) -> int:
    """How many attempts more may begin now."""
    if health.held_until is not None and now < health.held_until:
        return 0
    return max(width_of(health, concurrency) - busy, 0)


def probe(health: Health, lease_until: int) -> Health:
    """An attempt began. If it is a probe, there is no other until it is settled or lapses."""
    if health.breaker is Breaker.CLOSED:
        return health
    return replace(health, breaker=MOVES[health.breaker, Move.PROBE], held_until=lease_until)


def reset(health: Health) -> Health:
    """What it is after it was enabled or moved: a queue that failures held begins one by one."""
    return Health(
        width=1 if health.failures else None,
        last_success_at=health.last_success_at,
        last_failure_at=health.last_failure_at,
    )


def follow(health: Health, seen: Seen) -> Health:
    """What the health is after an attempt."""
    if succeeded(seen.outcome):
        return _after_success(health, seen)
    after = replace(
        health,
        failures=health.failures + 1,
        failing_since=seen.now if health.failing_since is None else health.failing_since,
        last_failure_at=seen.now,
    )
    if refuses_payload(seen.outcome):
        return _answered(replace(after, strikes=0))
    after = replace(after, strikes=health.strikes + 1)
    return _held(_struck(_throttled(after, seen), seen), seen)


def is_well(health: Health) -> bool:
    """Whether a success changes nothing but when the last one was."""
    return (
        health.failures == 0
        and health.width is None
        and health.held_until is None
        and health.breaker is Breaker.CLOSED
    )


def disabling(health: Health, now: int) -> str | None:
    """A reason to disable the endpoint: it failed for too long without a success in between."""
    since = health.failing_since
    return FAILING if since is not None and now - since >= LONG_FAILURE else None


def _after_success(health: Health, seen: Seen) -> Health:
    after = replace(
        health,
        failures=0,
        strikes=0,
        failing_since=None,
        last_success_at=seen.now,
    )
    if health.refused_at is not None and seen.started_at >= health.refused_at:
        # Whoever took what was sent after that meant one delivery, which waits in any case.
        after = replace(after, held_until=None, refused_at=None)
    return _widened(after, seen) if after.breaker is Breaker.CLOSED else _answered(after)


def _answered(health: Health) -> Health:
    if health.breaker is Breaker.CLOSED:
        return health
    # What was held is due at once: it goes one by one at first.
    after = MOVES[health.breaker, Move.ANSWER]
    return replace(health, breaker=after, held_until=None, refused_at=None, pause=0, width=1)


def _struck(health: Health, seen: Seen) -> Health:
    match health.breaker:
        case Breaker.CLOSED if _strikes_out(health, seen.now):
            return _paused(health, Move.STRIKE_OUT, FIRST_PAUSE, seen)
        case Breaker.HALF_OPEN:
            # Its hold was the probe's own.
            return _paused(replace(health, held_until=None), Move.FAIL, 2 * health.pause, seen)
    return health  # open: an attempt that began before says nothing new


def _paused(health: Health, move: Move, pause: int, seen: Seen) -> Health:
    pause = min(pause, seen.longest)
    until = max(health.held_until or 0, seen.now + pause)  # a Retry-After may be longer
    return replace(health, breaker=MOVES[health.breaker, move], pause=pause, held_until=until)


def _strikes_out(health: Health, now: int) -> bool:
    lasts = now - (now if health.failing_since is None else health.failing_since)
    return health.strikes >= STRIKES and lasts >= BRIEFLY


def _throttled(health: Health, seen: Seen) -> Health:
    # Attempts that began before the last cut say what is known; all of a full width would halve
    # it to one.
    if not throttles(seen.outcome) or not _is_news(health, seen):
        return health
    width = max(width_of(replace(health, breaker=Breaker.CLOSED), seen.concurrency) // 2, 1)
    return replace(health, width=width, throttled_at=seen.now)


def _widened(health: Health, seen: Seen) -> Health:
    # Additive increase. One a success and not one a round: who fails one attempt in ten would be
    # kept at four at once for ever, so that a few slow answers stop all the others.
    if health.width is None or not _is_news(health, seen):
        return health
    if health.width + 1 >= seen.concurrency:
        return replace(health, width=None, throttled_at=None)
    return replace(health, width=health.width + 1)


def _is_news(health: Health, seen: Seen) -> bool:
    return health.throttled_at is None or seen.started_at >= health.throttled_at


def _held(health: Health, seen: Seen) -> Health:
    asked = hold_of(seen.outcome, seen.now)
    if not asked:
        return health
    until = max(health.held_until or 0, seen.now + asked)
    return replace(health, held_until=until, refused_at=seen.started_at)
