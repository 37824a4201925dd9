"""Floor 1, decisions: what follows from one attempt. Pure; time and jitter are passed in.

Delays of a schedule are seconds, every other time is milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Final

from receiver.clock import DAY, HOUR, SECOND, from_datetime
from receiver.deliveries import Failure, Outcome, State

SCHEDULE: Final[tuple[int, ...]] = (
    0, 5, 20, 60, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400
)  # fmt: skip
DEMO_SCHEDULE: Final[tuple[int, ...]] = (0, 1, 2, 5)

GONE: Final = "gone"
RETRY_AFTER_CAP: Final = DAY
HOLD_CAP: Final = HOUR

_THROTTLING: Final = frozenset({429, 502, 504})
_HOLDING: Final = frozenset({429, 503})
_REFUSING: Final = frozenset({400, 409, 413, 422})
_DELTA: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows: the delivery's state, and what its endpoint has to hear."""

    state: State  # SUCCEEDED, PENDING or DEAD
    next_attempt_at: int | None  # only with PENDING
    disable: str | None = None  # a reason: disable the endpoint and hold its queue


def decide(
    outcome: Outcome, *, attempt: int, schedule: Sequence[int], now: int, jitter: float
) -> Decision:
    """What follows from the `attempt`-th try (from 1). `jitter` in [0, 1) spreads by ±20 %."""
    if succeeded(outcome):
        return Decision(State.SUCCEEDED, None)
    disable = GONE if outcome.status == 410 else None
    if attempt >= len(schedule):
        return Decision(State.DEAD, None, disable)
    delay = max(_spread(schedule[attempt], jitter), _asked(outcome, now))
    return Decision(State.PENDING, now + delay, disable)


def succeeded(outcome: Outcome) -> bool:
    """Only a 2xx that arrived in time."""
    return outcome.failure is None and outcome.status is not None and 200 <= outcome.status < 300


def throttles(outcome: Outcome) -> bool:
    """Whether the endpoint is to get less at once (Standard Webhooks 1.0: 429, 502, 504)."""
    return outcome.status in _THROTTLING or outcome.failure is Failure.TIMEOUT


def hold_of(outcome: Outcome, now: int) -> int:
    """Milliseconds for which the endpoint asks to be left alone altogether, at most an hour.

    Only 429 and 503 speak of the whole endpoint (RFC 9110 §10.2.3, RFC 6585 §4). The delivery that
    was answered waits for up to a day; a slip in that header must not stop the others for as long.
    """
    return min(_asked(outcome, now), HOLD_CAP) if outcome.status in _HOLDING else 0


def refuses_payload(outcome: Outcome) -> bool:
    """Whether the endpoint is there and has something against this one event alone."""
    return outcome.failure is Failure.STATUS and outcome.status in _REFUSING


def parse_retry_after(value: str, now_ms: int) -> int | None:
    """Milliseconds to wait, at most 24 h; None if the header says nothing one can follow."""
    text = value.strip()
    if _DELTA.fullmatch(text):
        return round(min(float(text) * SECOND, RETRY_AFTER_CAP))  # any number of digits is one
    moment = _http_date(text)
    return None if moment is None else min(max(moment - now_ms, 0), RETRY_AFTER_CAP)


def undated(outcome: Outcome, wall: int) -> Outcome:
    """The same, with a date in `Retry-After` as seconds from now.

    The endpoint wrote it by its own clock, so it is held against the wall's. The steady clock, by
    which retries go, may be hours from that after somebody set it.
    """
    given = outcome.retry_after
    if given is None or not given.strip()[:1].isalpha():
        return outcome
    asked = parse_retry_after(given, wall)
    return replace(outcome, retry_after=None if asked is None else f"{asked / SECOND:.3f}")


def _http_date(text: str) -> int | None:
    if not text[:1].isalpha():
        return None
    try:
        return from_datetime(parsedate_to_datetime(text))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _asked(outcome: Outcome, now: int) -> int:
    asked = parse_retry_after(outcome.retry_after, now) if outcome.retry_after else None
    return asked or 0


def _spread(seconds: int, jitter: float) -> int:
    return round(seconds * SECOND * (0.8 + 0.4 * jitter))
